//! A space with its conditions, as a tree: a path has a value only where the paths it depends on
//! have theirs. Parents come before their children, otherwise paths go in alphabetical order.
//!
//! Without conditions a grid's points are numbers in a mixed radix whose last digit is the last path.

use serde_json::Value;
use std::collections::BTreeMap;

use super::{Conditions, Space, When};
use crate::Hparams;

/// More values than this of a path that others depend on are not looked at one by one: such a grid
/// is too large whatever the others are.
const MANY: u64 = 1 << 16;

/// A space in the order in which a point is made.
#[derive(Debug)]
pub struct Tree<'a> {
    space: &'a Space,
    when: &'a Conditions,
    order: Vec<&'a str>,
}

type Point = BTreeMap<String, Value>;

impl<'a> Tree<'a> {
    /// The order of a space. Paths that depend on each other in a circle, or on one that is not in
    /// the space, are in none: see [`Self::lost`].
    pub fn new(space: &'a Space, when: &'a Conditions) -> Self {
        let mut order: Vec<&str> = Vec::with_capacity(space.len());
        let is_ready = |path: &str, order: &[&str]| {
            let mut parents = when.get(path).into_iter().flat_map(When::paths);
            !order.contains(&path) && parents.all(|parent| order.contains(&parent))
        };
        while let Some(path) = (space.keys()).find(|path| is_ready(path, &order)) {
            order.push(path);
        }
        Self { space, when, order }
    }

    /// Paths, parents first.
    pub fn order(&self) -> &[&'a str] {
        &self.order
    }

    /// The first path that can never have a value: its conditions lead in a circle.
    pub fn lost(&self) -> Option<&'a str> {
        let is_lost = |path: &&String| !self.order.contains(&path.as_str());
        self.space.keys().find(is_lost).map(String::as_str)
    }

    /// Whether a path has a value beside those that a point has already.
    pub fn is_active(&self, path: &str, point: &Point) -> bool {
        self.when.get(path).is_none_or(|when| when.holds(point))
    }

    /// Points of the grid; `None` when a set is continuous and has no `count`.
    pub fn size(&self) -> Option<u64> {
        self.count(0, &mut Point::new())
    }

    /// The `index`-th point of the grid.
    pub fn point(&self, index: u64) -> Option<Hparams> {
        let mut point = Point::new();
        self.descend(0, index, &mut point)?;
        Some(Hparams(point))
    }

    fn is_parent(&self, path: &str) -> bool {
        let mut parents = self.when.values().flat_map(When::paths);
        parents.any(|parent| parent == path)
    }

    /// Points of what comes from a place of the order on, beside the values so far.
    fn count(&self, at: usize, point: &mut Point) -> Option<u64> {
        let Some(path) = self.order.get(at) else {
            return Some(1);
        };
        if !self.is_active(path, point) {
            return self.count(at + 1, point);
        }
        let domain = &self.space[*path];
        let size = domain.size()?;
        if !self.is_parent(path) || size > MANY {
            return Some(size.saturating_mul(self.count(at + 1, point)?));
        }
        let mut total = 0u64;
        for value in domain.points()? {
            point.insert((*path).to_owned(), value);
            total = total.saturating_add(self.count(at + 1, point)?);
        }
        point.remove(*path);
        Some(total)
    }

    fn descend(&self, at: usize, mut index: u64, point: &mut Point) -> Option<()> {
        let Some(path) = self.order.get(at) else {
            return (index == 0).then_some(());
        };
        if !self.is_active(path, point) {
            return self.descend(at + 1, index, point);
        }
        let domain = &self.space[*path];
        if !self.is_parent(path) {
            let below = self.count(at + 1, point)?;
            let value = domain.point(index.checked_div(below)?)?;
            point.insert((*path).to_owned(), value);
            return self.descend(at + 1, index % below, point);
        }
        for value in domain.points()? {
            point.insert((*path).to_owned(), value);
            let below = self.count(at + 1, point)?;
            if index < below {
                return self.descend(at + 1, index, point);
            }
            index -= below;
        }
        None
    }
}
