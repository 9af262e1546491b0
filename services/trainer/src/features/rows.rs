//! The rows of several shards, one after the other.

#[cfg(test)]
mod tests;

use super::Shard;
use tch::Tensor;

/// Rows of several shards that fit into this are copied into one tensor: a step on small features
/// costs less than finding its rows in many.
const COPIED_BYTES: u64 = 128 << 20;

/// Rows by number, over the shards that hold them.
#[derive(Debug)]
pub(super) struct Rows {
    parts: Vec<Tensor>,
    /// The number of each part's first row, and of the row after the last.
    bounds: Vec<usize>,
    /// What is mapped stays where it is.
    _shards: Vec<Shard>,
}

impl Rows {
    /// The rows of these shards, at least one, in this order.
    pub(super) fn of(shards: Vec<Shard>) -> Self {
        let parts = shards.iter().map(|shard| shard.rows.shallow_clone());
        let parts = parts.collect();
        Self {
            _shards: shards,
            ..Self::over(parts, COPIED_BYTES)
        }
    }

    fn over(mut parts: Vec<Tensor>, copied_bytes: u64) -> Self {
        let bytes: u64 = parts.iter().map(|part| part.numel() as u64 * 4).sum();
        if parts.len() > 1 && bytes <= copied_bytes {
            parts = vec![Tensor::cat(&parts, 0)];
        }
        let mut bounds = vec![0];
        for part in &parts {
            bounds.push(bounds[bounds.len() - 1] + part.size()[0] as usize);
        }
        Self {
            parts,
            bounds,
            _shards: Vec::new(),
        }
    }

    /// A copy of these rows, in this order: [indices, shape…].
    pub(super) fn take(&self, indices: &[usize]) -> Tensor {
        let select = |part: &Tensor, rows: &[i64]| part.index_select(0, &Tensor::from_slice(rows));
        if let [part] = self.parts.as_slice() {
            let rows: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
            return select(part, &rows);
        }
        let mut rows: Vec<Vec<i64>> = vec![Vec::new(); self.parts.len()];
        let places: Vec<(usize, usize)> = indices
            .iter()
            .map(|&index| {
                let part = self.bounds.partition_point(|&bound| bound <= index) - 1;
                rows[part].push((index - self.bounds[part]) as i64);
                (part, rows[part].len() - 1)
            })
            .collect();
        let found: Vec<Tensor> = self
            .parts
            .iter()
            .zip(&rows)
            .map(|(part, rows)| select(part, rows))
            .collect();
        // Where each part's rows begin among all that were found.
        let mut first = vec![0];
        for rows in &rows {
            first.push(first[first.len() - 1] + rows.len());
        }
        let order: Vec<i64> = places
            .iter()
            .map(|&(part, place)| (first[part] + place) as i64)
            .collect();
        select(&Tensor::cat(&found, 0), &order)
    }
}
