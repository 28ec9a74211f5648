//! Which pieces can be passed over, by the bounds of their columns.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::scalar::ScalarValue;

/// A piece of a store: a file, or a chunk in memory.
pub(super) trait Piece {
    fn bounds(&self, column: &str) -> Option<(ScalarValue, ScalarValue)>;
    fn nulls(&self, column: &str) -> Option<u64>;
    fn rows(&self) -> Option<u64>;
}

/// Says for each piece whether it may hold rows that pass a filter.
pub(super) fn keep<P: Piece>(
    pieces: &[P],
    filter: Option<&Arc<dyn PhysicalExpr>>,
    schema: &SchemaRef,
) -> Result<Vec<bool>> {
    let Some(filter) = filter else {
        return Ok(vec![true; pieces.len()]);
    };
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let predicate = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(schema))
        .try_build(Arc::clone(filter))?;
    predicate.prune(&Pieces { pieces, schema })
}

struct Pieces<'a, P> {
    pieces: &'a [P],
    schema: &'a SchemaRef,
}

impl<P: Piece> Pieces<'_, P> {
    fn side(&self, column: &Column, side: impl Fn((ScalarValue, ScalarValue)) -> ScalarValue) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        let unknown = ScalarValue::try_from(field.data_type()).ok()?;
        let values = self
            .pieces
            .iter()
            .map(|piece| piece.bounds(&column.name).map_or(unknown.clone(), &side));
        ScalarValue::iter_to_array(values).ok()
    }
}

impl<P: Piece> PruningStatistics for Pieces<'_, P> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.side(column, |(low, _)| low)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.side(column, |(_, high)| high)
    }

    fn num_containers(&self) -> usize {
        self.pieces.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let counts: UInt64Array = self.pieces.iter().map(|piece| piece.nulls(&column.name)).collect();
        Some(Arc::new(counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts: UInt64Array = self.pieces.iter().map(Piece::rows).collect();
        Some(Arc::new(counts))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
