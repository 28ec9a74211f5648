//! The most frequent values in bounded memory: the rarest ones leave when there are too many, and every count says by how much it may be
//! too low for that.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::points;

const MAX_K: i64 = 1_000;
/// Values that are counted for each that is shown.
const SPARE: usize = 10;
const LEAST: usize = 256;

#[derive(Debug, PartialEq, Eq, Hash)]
struct TopK {
    signature: Signature,
}

pub(super) fn approx_top_k() -> AggregateUDF {
    AggregateUDF::new_from_impl(TopK {
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

fn members() -> Fields {
    Fields::from(vec![
        Field::new("value", DataType::Utf8, true),
        Field::new("count", DataType::Int64, true),
        Field::new("error", DataType::Int64, true),
    ])
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(members()), true))
}

impl AggregateUDFImpl for TopK {
    fn name(&self) -> &str {
        "approx_top_k"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(item()))
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match args.len() {
            2 => Ok(vec![DataType::Utf8, DataType::Int64]),
            _ => plan_err!("approx_top_k(value, k)"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |part: &str, kind| points::field(format_state_name(args.name, part), kind);
        Ok(vec![
            field("values", DataType::Utf8),
            field("counts", DataType::Int64),
            field("errors", DataType::Int64),
            field("k", DataType::Int64),
            field("floor", DataType::Int64),
        ])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Talkers>::default())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    count: i64,
    /// By how much the count may be too low.
    error: i64,
}

#[derive(Debug, Default)]
struct Talkers {
    k: usize,
    counted: HashMap<String, Counted>,
    /// What a value may have been counted before it left, at most.
    floor: i64,
    bytes: usize,
}

impl Talkers {
    fn set_k(&mut self, k: i64) -> Result<()> {
        if !(1..=MAX_K).contains(&k) {
            return plan_err!("approx_top_k: k is from 1 to {MAX_K}, not {k}");
        }
        self.k = k as usize;
        Ok(())
    }

    fn capacity(&self) -> usize {
        (self.k * SPARE).max(LEAST)
    }

    fn add(&mut self, value: &str, more: Counted) {
        match self.counted.get_mut(value) {
            Some(counted) => {
                counted.count += more.count;
                counted.error += more.error;
            }
            None => {
                self.bytes += value.len();
                let error = more.error + self.floor;
                self.counted.insert(value.to_owned(), Counted { error, ..more });
                // Twice as many are let in before the rarest leave together: finding the rarest one each time would cost more.
                if self.counted.len() > 2 * self.capacity() {
                    self.shrink();
                }
            }
        }
    }

    /// The rarest leave. Whoever comes later may have been one of them.
    fn shrink(&mut self) {
        let mut all = self.sorted();
        let gone = all.split_off(self.capacity().min(all.len()));
        let most = gone.iter().map(|(_, counted)| counted.count + counted.error).max();
        self.floor = self.floor.max(most.unwrap_or(0));
        self.bytes = all.iter().map(|(value, _)| value.len()).sum();
        self.counted = all.into_iter().collect();
    }

    /// The most frequent first; equal ones by their text.
    fn sorted(&self) -> Vec<(String, Counted)> {
        let mut all: Vec<(String, Counted)> = self.counted.iter().map(|(v, c)| (v.clone(), *c)).collect();
        all.sort_by(|(a, x), (b, y)| y.count.cmp(&x.count).then_with(|| a.cmp(b)));
        all
    }
}

impl Accumulator for Talkers {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [texts, k] = values else {
            return plan_err!("approx_top_k(value, k)");
        };
        let (texts, k) = (texts.as_string::<i32>(), k.as_primitive::<Int64Type>());
        if self.k == 0 && !k.is_empty() && k.is_valid(0) {
            self.set_k(k.value(0))?;
        }
        for text in texts.iter().flatten() {
            self.add(text, Counted { count: 1, error: 0 });
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut best = self.sorted();
        best.truncate(self.k);
        let values = StringArray::from_iter_values(best.iter().map(|(value, _)| value));
        let counts = Int64Array::from_iter_values(best.iter().map(|(_, counted)| counted.count));
        let errors = Int64Array::from_iter_values(best.iter().map(|(_, counted)| counted.error));
        let columns: Vec<ArrayRef> = vec![Arc::new(values), Arc::new(counts), Arc::new(errors)];
        let items = StructArray::try_new(members(), columns, None)?;
        let offsets = OffsetBuffer::from_lengths([best.len()]);
        Ok(ScalarValue::List(Arc::new(ListArray::try_new(
            item(),
            offsets,
            Arc::new(items),
            None,
        )?)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes + self.counted.capacity() * size_of::<(String, Counted)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let all = self.sorted();
        Ok(vec![
            points::texts(all.iter().map(|(value, _)| value.as_str()))?,
            points::ints(all.iter().map(|(_, counted)| counted.count))?,
            points::ints(all.iter().map(|(_, counted)| counted.error))?,
            points::ints(std::iter::once(self.k as i64))?,
            points::ints(std::iter::once(self.floor))?,
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let k = points::flat_ints(states.get(3))?;
        if let Some(k) = k.iter().flatten().find(|k| *k > 0) {
            self.set_k(k)?;
        }
        let values = points::flat_texts(states.first())?;
        let (counts, errors) = (points::flat_ints(states.get(1))?, points::flat_ints(states.get(2))?);
        for at in 0..values.len() {
            let counted = Counted {
                count: counts.value(at),
                error: errors.value(at),
            };
            self.add(values.value(at), counted);
        }
        // A value that is counted here may have left there.
        let theirs: i64 = points::flat_ints(states.get(4))?.iter().flatten().sum();
        self.floor += theirs;
        self.counted.values_mut().for_each(|counted| counted.error += theirs);
        Ok(())
    }
}
