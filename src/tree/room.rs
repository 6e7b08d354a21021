//! Memory for nodes: what the next inserts may take.

use super::{INNER_CAP, Inner, LEAF_CAP, Leaf, Tree};
use crate::memory::Refused;

impl Tree {
    /// Take the memory for the next `inserts` inserts now, where a refusal does no harm, and for those promised.
    ///
    /// A leaf that was split takes half its size before it splits again; a batch that starts on many full
    /// leaves can need more and then allocates as it goes.
    pub fn reserve(&mut self, inserts: usize) -> Result<(), Refused> {
        let (kept_leaves, kept_inners) = self.worst_case(self.promised);
        let leaves = inserts.min(inserts / (LEAF_CAP / 2) + 4);
        let inners = leaves / (INNER_CAP / 2) + self.height as usize + 2;
        let leaves = (leaves + kept_leaves).saturating_sub(self.free_leaves);
        let inners = (inners + kept_inners).saturating_sub(self.free_inners);
        self.leaves.reserve(leaves, &Leaf::new(u64::MAX, 0))?;
        self.inners.reserve(inners, &Inner::new(u64::MAX, 0, 0))
    }

    /// True if `inserts` inserts take no memory, wherever they are and whatever is removed between them.
    pub fn has_room(&self, inserts: usize) -> bool {
        let (leaves, inners) = self.worst_case(inserts);
        self.leaf_room() >= leaves && self.inner_room() >= inners
    }

    /// Leaves are there for the inserts promised. What inner nodes they need depends on the tree that they come to.
    pub fn keeps_promise(&self) -> bool {
        self.leaf_room() >= self.promised
    }

    /// More leaves and inner nodes than any `inserts` inserts take.
    ///
    /// An insert splits one leaf at most, and one node on each level above it. The top level begins with one node.
    /// A node that was split in its middle is full again after fifteen children; at the edges of the tree, where
    /// splits leave a nearly full node behind, that one and the edge together take thirty. So on the top level and
    /// on those that grow above it a fifteenth of the level below is split, and a few more at the beginning.
    fn worst_case(&self, inserts: usize) -> (usize, usize) {
        if inserts == 0 {
            return (0, 0);
        }
        let below_the_root = (self.height as usize).saturating_sub(1);
        (inserts, inserts * below_the_root + inserts / (INNER_CAP / 2 - 2) + INNER_CAP)
    }

    /// Take memory again for what inserts that were not promised have used up.
    #[cold]
    pub fn keep_promise(&mut self) {
        let (leaves, inners) = self.worst_case(self.promised);
        while self.leaf_room() < leaves {
            self.leaves.extend(&Leaf::new(u64::MAX, 0));
        }
        while self.inner_room() < inners {
            self.inners.extend(&Inner::new(u64::MAX, 0, 0));
        }
    }

    fn leaf_room(&self) -> usize {
        self.free_leaves + self.leaves.capacity() - self.leaves.len()
    }

    fn inner_room(&self) -> usize {
        self.free_inners + self.inners.capacity() - self.inners.len()
    }
}
