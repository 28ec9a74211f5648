//! The Arrow IPC stream, uncompressed, as pyarrow and others read it.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use super::Encoder;

#[derive(Default)]
pub(crate) struct ArrowStream {
    writer: Option<StreamWriter<Vec<u8>>>,
}

impl ArrowStream {
    fn writer(&mut self) -> Result<&mut StreamWriter<Vec<u8>>, ArrowError> {
        self.writer
            .as_mut()
            .ok_or_else(|| ArrowError::IpcError("rows before the schema".into()))
    }
}

impl Encoder for ArrowStream {
    fn begin(&mut self, schema: &Schema, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
        out.append(writer.get_mut());
        self.writer = Some(writer);
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let writer = self.writer()?;
        writer.write(batch)?;
        out.append(writer.get_mut());
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let writer = self.writer()?;
        writer.finish()?;
        out.append(writer.get_mut());
        Ok(())
    }
}
