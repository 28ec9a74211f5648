//! A scan that travels, as bytes (`TABLES.md`), and how it is read on the other side.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use object_store::path::Path;
use prost::Message;

use super::cold_read::ColdRead;
use super::part_exec::PartExec;
use super::travel::TravelExec;
use crate::cold::{ColdFile, ColdTable};
use crate::reading::Caches;

/// Of the message below. Both sides are of one build anyway: plans of the engine change with its version.
const VERSION: u32 = 1;

/// A scan as bytes.
#[derive(Clone, PartialEq, Message)]
struct Sent {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// What the table calls itself.
    #[prost(string, tag = "2")]
    table: String,
    #[prost(message, repeated, tag = "3")]
    files: Vec<SentFile>,
    /// Columns of the table, by name and in this order.
    #[prost(string, repeated, tag = "4")]
    columns: Vec<String>,
    #[prost(message, optional, tag = "5")]
    filter: Option<PhysicalExprNode>,
    #[prost(message, optional, tag = "6")]
    rule: Option<PhysicalExprNode>,
    #[prost(string, tag = "7")]
    label: String,
}

#[derive(Clone, PartialEq, Message)]
struct SentFile {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    #[prost(int64, tag = "3")]
    modified_ms: i64,
}

/// Writes scans that travel, and reads them for the table of this machine.
#[derive(Clone)]
pub struct ColdCodec {
    table: ColdTable,
    caches: Arc<Caches>,
}

impl ColdCodec {
    pub(super) fn new(table: ColdTable, caches: Arc<Caches>) -> Self {
        Self { table, caches }
    }

    fn arrived(
        &self,
        sent: Sent,
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<PartExec> {
        if sent.version != VERSION {
            return refuse(format!(
                "a scan of version {} cannot be read by this build, which knows {VERSION}",
                sent.version
            ));
        }
        if sent.table != self.table.identity() {
            // Whoever sends it learns so that nothing of its lake can be read here.
            return Err(DataFusionError::Configuration(format!(
                "the scan is of the table {}, and this lake holds {}",
                sent.table,
                self.table.identity()
            )));
        }
        let logical = self.table.mapping().logical();
        let columns = sent.columns.iter().map(|name| logical.index_of(name));
        let columns: Vec<usize> = columns.collect::<std::result::Result<_, _>>()?;
        let schema = Arc::new(logical.project(&columns)?);
        let files = sent.files.into_iter().map(|file: SentFile| -> Result<Arc<ColdFile>> {
            let path = Path::parse(&file.path).map_err(|error| DataFusionError::External(error.into()))?;
            Ok(Arc::new(ColdFile::bare(path, file.bytes, file.modified_ms)))
        });
        let mut read = ColdRead {
            table: self.table.clone(),
            caches: Arc::clone(&self.caches),
            files: files.collect::<Result<_>>()?,
            columns,
            filter: None,
            rule: None,
            limit: None,
            partitions: ctx.session_config().target_partitions(),
        };
        let decoding = PhysicalPlanDecodeContext::new(ctx, self);
        let decode = |expr: Option<PhysicalExprNode>, schema: &SchemaRef| {
            expr.map(|expr| converter.proto_to_physical_expr(&expr, schema, &decoding))
                .transpose()
        };
        read.filter = decode(sent.filter, self.table.mapping().physical())?;
        read.rule = decode(sent.rule, &read.rule_schema()?)?;
        Arc::new(read).part(sent.label, schema, Some(ctx.runtime_env().as_ref()))
    }
}

impl fmt::Debug for ColdCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdCodec").field("table", &self.table).finish()
    }
}

fn refuse<T>(why: String) -> Result<T> {
    Err(DataFusionError::Plan(why))
}

impl PhysicalExtensionCodec for ColdCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let sent = Sent::decode(buf).map_err(|error| DataFusionError::External(error.into()))?;
        Ok(Arc::new(self.arrived(sent, ctx, converter)?))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(scan) = node.downcast_ref::<TravelExec>() else {
            return refuse(format!("{} does not travel", node.name()));
        };
        let read = &scan.read;
        let logical = self.table.mapping().logical();
        let encode = |expr: &Option<Arc<dyn PhysicalExpr>>| {
            let encoded = expr.as_ref().map(|expr| converter.physical_expr_to_proto(expr, self));
            encoded.transpose()
        };
        let sent = Sent {
            version: VERSION,
            table: read.table.identity().to_owned(),
            files: read
                .files
                .iter()
                .map(|file| SentFile {
                    path: file.path.to_string(),
                    bytes: file.bytes,
                    modified_ms: file.modified_ms,
                })
                .collect(),
            columns: read
                .columns
                .iter()
                .map(|at| logical.field(*at).name().clone())
                .collect(),
            filter: encode(&read.filter)?,
            rule: encode(&read.rule)?,
            label: scan.label.clone(),
        };
        sent.encode(buf)
            .map_err(|error| DataFusionError::External(error.into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::prelude::SessionContext;
    use datafusion_proto::physical_plan::DefaultPhysicalProtoConverter;
    use sluice_wire::ids::Partition;

    use super::*;
    use crate::provider::{Tables, TablesOptions, is_cold_scan};
    use crate::stores::{LogEnds, Stores};

    struct NoEnds;

    impl LogEnds for NoEnds {
        fn end(&self, _: Partition) -> Option<u64> {
            None
        }

        fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
            None
        }
    }

    #[tokio::test]
    async fn only_a_scan_of_this_table_and_its_files_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::open(folder.path().to_str().unwrap(), 0).await.unwrap();
        let codec = Tables::new(stores, Arc::new(NoEnds), TablesOptions::default()).codec();
        let context = SessionContext::new().task_ctx();
        let take = |sent: &Sent| {
            let bytes = sent.encode_to_vec();
            codec.try_decode(&bytes, &[], &context, &DefaultPhysicalProtoConverter {})
        };
        let good = Sent {
            version: VERSION,
            table: codec.table.identity().to_owned(),
            files: vec![SentFile {
                path: "day=2026-11-21/part-1.parquet".into(),
                bytes: 1_000,
                modified_ms: 0,
            }],
            columns: vec!["service".into(), "body".into()],
            filter: None,
            rule: None,
            label: "1 file".into(),
        };
        assert!(is_cold_scan(&take(&good).unwrap()));
        type Change = fn(&mut Sent);
        let refused: [(Change, &str); 6] = [
            (|sent| sent.version += 1, "version 2"),
            (|sent| sent.table.push('x'), "this lake holds"),
            (|sent| sent.files[0].path = "../secret".into(), ".."),
            (|sent| sent.files[0].path = "a/../../secret".into(), ".."),
            (|sent| sent.columns.push("password".into()), "password"),
            (|sent| sent.filter = Some(PhysicalExprNode::default()), ""),
        ];
        for (at, (change, says)) in refused.into_iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            let error = take(&bad).err().unwrap_or_else(|| panic!("{at} was taken"));
            assert!(error.to_string().contains(says), "{at}: {error}");
            let is_other_table = matches!(error, DataFusionError::Configuration(_));
            assert_eq!(is_other_table, at == 1, "{at}: {error}");
        }
        for bytes in [&b""[..], b"no plan", &[0xff; 64]] {
            let taken = codec.try_decode(bytes, &[], &context, &DefaultPhysicalProtoConverter {});
            assert!(taken.is_err());
        }
    }
}
