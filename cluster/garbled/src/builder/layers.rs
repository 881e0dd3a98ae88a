//! Layers of ANDs that do not depend on each other, as few as the longest path has ANDs.

use super::Node;
use crate::circuit::Width;

/// ANDs that are garbled at once: four hashes each, 64 hashes in parallel.
const BATCH: usize = 16;

/// Layers among which a batch to fill up is looked for.
const SEARCH: usize = 64;

/// A layer's nodes, in rising order.
#[derive(Clone, Default)]
pub(super) struct Nodes {
    pub(super) linear: Vec<usize>,
    pub(super) ands: Vec<usize>,
}

/// The nodes of each layer, without those that have no uses. An AND is as early as it can be, unless a little later it
/// fills up a batch and nothing has to wait for it; a linear gate is in the layer of the first gate that reads it, for
/// before it would take a slot for nothing.
pub(super) fn assign(nodes: &[Node], uses: &[u32], width: Width) -> Vec<Nodes> {
    let batch = BATCH / width.lanes();
    let graph = Graph { nodes, uses, batch };
    let last = graph.depth();
    let places = graph.places(last);
    let places = graph.latest(last, |and, _| places[and]);
    let mut layers = vec![Nodes::default(); last + 1];
    for index in graph.needed() {
        match nodes[index] {
            Node::Input => {}
            Node::Xor(..) | Node::Turn(..) => layers[places[index]].linear.push(index),
            Node::And(..) => layers[places[index]].ands.push(index),
        }
    }
    layers.retain(|layer| !layer.linear.is_empty() || !layer.ands.is_empty());
    layers
}

struct Graph<'a> {
    nodes: &'a [Node],
    uses: &'a [u32],
    /// Gates whose lanes fill a batch.
    batch: usize,
}

impl Graph<'_> {
    fn needed(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.nodes.len()).filter(|index| self.uses[*index] > 0)
    }

    fn is_and(&self, index: usize) -> bool {
        matches!(self.nodes[index], Node::And(..))
    }

    /// The greatest of the operands' values.
    fn after(&self, index: usize, values: &[usize]) -> usize {
        let operands = self.nodes[index].operands();
        operands
            .map(|operand| values[operand as usize])
            .max()
            .unwrap_or(0)
    }

    /// The number of ANDs on the longest path.
    fn depth(&self) -> usize {
        let mut depths = vec![0; self.nodes.len()];
        for index in self.needed() {
            depths[index] = self.after(index, &depths) + usize::from(self.is_and(index));
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// The latest layer that each node can be in if the last one is `last` and an AND is where `and` puts it, which
    /// is given the latest layer of all that reads it.
    fn latest(&self, last: usize, and: impl Fn(usize, usize) -> usize) -> Vec<usize> {
        let mut latest = vec![last; self.nodes.len()];
        for index in self.needed().rev() {
            if self.is_and(index) {
                latest[index] = and(index, latest[index]);
            }
            for operand in self.nodes[index].operands() {
                latest[operand as usize] = latest[index].min(latest[operand as usize]);
            }
        }
        latest
    }

    /// The layer of each AND.
    fn places(&self, last: usize) -> Vec<usize> {
        // The result of an AND is there in the next layer.
        let deadlines = self.latest(last, |_, readers| readers - 1);
        let mut order: Vec<usize> = self.needed().collect();
        // Still after its operands, and a linear gate before the ANDs of its layer.
        order.sort_by_key(|index| (deadlines[*index], self.is_and(*index)));
        let mut places = vec![0; self.nodes.len()];
        // The first layer in which each node's value is there.
        let mut ready = vec![0; self.nodes.len()];
        let mut counts = vec![0usize; last];
        for index in order {
            ready[index] = self.after(index, &ready);
            if self.is_and(index) {
                let end = deadlines[index].min(ready[index] + SEARCH);
                let begun = |layer: &usize| !counts[*layer].is_multiple_of(self.batch);
                let place = (ready[index]..=end).find(begun).unwrap_or(ready[index]);
                counts[place] += 1;
                places[index] = place;
                ready[index] = place + 1;
            }
        }
        places
    }
}
