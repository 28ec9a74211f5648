//! Letting go of what is acknowledged: the cursor first, then the files; on a full disk also the newest one.

use sluice_wal::crash_point;

use super::cursor::Saved;
use super::{GIVEN_UP_FILE, Spool, SpoolError, Writer, is_full, lock};

impl Spool {
    /// Saves what is acknowledged, then deletes what nobody needs any more. Blocks.
    pub fn save_cursor(&self) -> Result<u64, SpoolError> {
        let mut writer = lock(&self.writer);
        let watermark = self.write_cursor(&mut writer)?;
        // One record below the watermark stays: its totals tell what a damaged successor held.
        Ok(writer.wal.trim_below(watermark.saturating_sub(1))?)
    }

    /// The same on a full disk: lets go of everything that is acknowledged. Tells whether batches can be sealed again. Blocks.
    pub(crate) fn relieve(&self) -> Result<bool, SpoolError> {
        let mut writer = lock(&self.writer);
        let watermark = match self.write_cursor(&mut writer) {
            // Not even for the cursor there is room. What is acknowledged may go without it: a cloud that is sent it again knows it.
            Err(error) if error.is_full() => {
                let acked = lock(&self.acked);
                if lock(&self.given_up).is_saved() {
                    self.watermark(&acked.set)
                } else {
                    acked.set.next_absent(self.reader.first())
                }
            }
            other => other?,
        };
        let next = writer.wal.next();
        let is_drained = watermark >= next;
        let below = if is_drained { next } else { watermark.saturating_sub(1) };
        // The record that said it may go; and the totals up to it.
        writer.set_note();
        let room = writer.wal.relieve(below)?;
        Ok(room && writer.save_identity().is_ok())
    }

    /// On a full disk with the help of the ballast.
    pub(super) fn save_given_up(&self, writer: &mut Writer) -> Result<(), SpoolError> {
        let path = self.options.data_dir.join(GIVEN_UP_FILE);
        let mut given_up = lock(&self.given_up);
        let mut result = given_up.save(&path);
        if result.as_ref().is_err_and(is_full) {
            writer.wal.give_up_ballast();
            result = given_up.save(&path);
        }
        result.map_err(SpoolError::Cursor)
    }

    /// Returns the index below which everything is acknowledged.
    fn write_cursor(&self, writer: &mut Writer) -> Result<u64, SpoolError> {
        let acked = lock(&self.acked).set.clone();
        let watermark = self.watermark(&acked);
        let saved = Saved {
            acked,
            next: writer.wal.next(),
            epoch: writer.epoch.epoch.number,
            totals: writer.totals.clone(),
            covered: writer.covered,
        };
        let mut result = saved.save(&self.cursor_path);
        if result.as_ref().is_err_and(is_full) {
            // That is what the ballast is for.
            writer.wal.give_up_ballast();
            result = saved.save(&self.cursor_path);
        }
        result.map_err(SpoolError::Cursor)?;
        crash_point("edge.cursor.saved");
        // After the cursor, which knows which of them are settled.
        self.save_given_up(writer)?;
        Ok(watermark)
    }
}
