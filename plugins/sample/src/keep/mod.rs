//! What is kept whatever the rate. The rules look at what a row is and at the past, never at the randomness of its trace: so
//! a row that they keep had no chance to be dropped, and stands for itself alone.

mod errors;
mod first;
mod security;
mod slow;

use arrow_buffer::BooleanBuffer;
use sluice_plugin::Batch;

use crate::config::Config;
use crate::field::Rule;
use crate::memory::Memory;
use crate::rows;
use first::FirstOfPattern;
use security::SecurityRules;
use slow::Slowest;

#[derive(Debug)]
pub(crate) struct Keep {
    errors: bool,
    /// Spans that took as many nanoseconds.
    slow_ns: Option<u64>,
    slowest: Option<Slowest>,
    security: Option<SecurityRules>,
    when: Vec<Rule>,
    first: Option<FirstOfPattern>,
}

impl Keep {
    pub(crate) fn new(config: &Config) -> Result<Keep, String> {
        let slow = config.keep_slow.as_ref();
        if slow.is_some_and(|slow| slow.above.is_none() && slow.quantile.is_none()) {
            return Err("keep_slow: give `above`, `quantile`, or both".to_owned());
        }
        let above = slow.and_then(|slow| slow.above.as_deref());
        let slow_ns = above.map(crate::units::nanoseconds).transpose();
        let when = config.keep_when.iter().enumerate();
        let when = when.map(|(place, when)| Rule::new(when).map_err(|e| format!("keep_when[{place}]: {e}")));
        Ok(Keep {
            errors: config.keep_errors,
            slow_ns: slow_ns.map_err(|e| format!("keep_slow.above: {e}"))?,
            slowest: slow.and_then(|slow| slow.quantile).map(Slowest::new).transpose()?,
            security: config.keep_security.as_ref().map(SecurityRules::new).transpose()?,
            when: when.collect::<Result<_, _>>()?,
            first: config.keep_first.as_ref().map(FirstOfPattern::new).transpose()?,
        })
    }

    /// The columns that the rules look at.
    pub(crate) fn reads(&self) -> Vec<String> {
        let own = |columns: &[&str]| columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>();
        let mut reads = Vec::new();
        if self.errors {
            reads.extend(errors::reads());
        }
        if self.slow_ns.is_some() {
            reads.extend(own(&["duration_ns"]));
        }
        if self.slowest.is_some() {
            reads.extend(own(&["duration_ns", "service", "name"]));
        }
        if self.first.is_some() {
            reads.extend(own(&["service", "name", "body"]));
        }
        reads.extend(self.security.iter().flat_map(SecurityRules::reads));
        reads.extend(self.when.iter().flat_map(Rule::reads));
        reads
    }

    /// The rows of a batch that stay. The first occurrences come last: a pattern counts as seen if a row without another
    /// reason to stay showed it.
    pub(crate) fn rows(
        &mut self,
        batch: &Batch,
        memory: Option<&dyn Memory>,
        now_ns: u64,
    ) -> Result<BooleanBuffer, String> {
        let count = batch.rows();
        let mut keep = BooleanBuffer::new_unset(count);
        if self.errors {
            keep = errors::rows(batch)?;
        }
        if let Some(slow_ns) = self.slow_ns {
            let slow = |ns: i64| u64::try_from(ns).is_ok_and(|ns| ns >= slow_ns);
            keep = rows::or(keep, &rows::where_int(&batch.ints("duration_ns")?, count, slow));
        }
        for rule in &self.when {
            keep = rows::or(keep, &rule.rows(batch));
        }
        if let Some(security) = &self.security {
            keep = rows::or(keep, &security.rows(batch)?);
        }
        let Some(memory) = memory else {
            return Ok(keep);
        };
        if let Some(slowest) = &mut self.slowest {
            keep = rows::or(keep, &slowest.rows(batch, memory, now_ns)?);
        }
        if let Some(first) = &mut self.first {
            keep = first.also(batch, keep, memory, now_ns)?;
        }
        Ok(keep)
    }
}
