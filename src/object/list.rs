//! A list of records in the order in which they were put there, for walks during which others change it.
//!
//! Each one on the list has a place: a number that grows and is never given out again. A walk remembers the place
//! it has come to and asks for the next one, whatever came or went meanwhile. That is a search by place, so the
//! list is a tree: a treap, whose nodes are an array beside the records. Putting a record on it takes no memory.

use crate::ensure;
use crate::memory::{Refused, reserve};
use crate::tree::NONE;

#[derive(Clone, Copy)]
struct Node {
    /// 0 when the record is not on the list.
    place: u64,
    /// Roots of what is before and behind.
    left: u32,
    right: u32,
}

const OFF: Node = Node { place: 0, left: NONE, right: NONE };

pub struct List {
    /// By record.
    nodes: Vec<Node>,
    root: u32,
    len: usize,
    /// The last place given out.
    clock: u64,
}

impl Default for List {
    fn default() -> Self {
        List { nodes: Vec::new(), root: NONE, len: 0, clock: 0 }
    }
}

impl List {
    /// Make room for records up to `count`.
    pub fn reserve(&mut self, count: usize) -> Result<(), Refused> {
        let room = count.saturating_sub(self.nodes.len());
        reserve(&mut self.nodes, room)
    }

    /// There is a record more, which is not on the list; room for it was reserved.
    pub fn push_record(&mut self) {
        self.nodes.push(OFF);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn contains(&self, id: u32) -> bool {
        self.nodes[id as usize].place != 0
    }

    /// Put the record at the end, unless it is on the list.
    pub fn add(&mut self, id: u32) {
        if self.contains(id) {
            return;
        }
        self.clock += 1;
        self.len += 1;
        self.nodes[id as usize].place = self.clock;
        self.root = self.join(self.root, id);
    }

    /// Take the record off, if it is on the list.
    pub fn remove(&mut self, id: u32) {
        let Node { place, left, right } = std::mem::replace(&mut self.nodes[id as usize], OFF);
        if place == 0 {
            return;
        }
        self.len -= 1;
        let joined = self.join(left, right);
        if self.root == id {
            self.root = joined;
            return;
        }
        let mut above = self.root;
        loop {
            let node = &mut self.nodes[above as usize];
            let below = if place < node.place { &mut node.left } else { &mut node.right };
            if *below == id {
                *below = joined;
                return;
            }
            above = *below;
        }
    }

    /// The first record behind place `after`, and its place. O(log n).
    pub fn next(&self, after: u64) -> Option<(u64, u32)> {
        let (mut id, mut found) = (self.root, None);
        while id != NONE {
            let node = &self.nodes[id as usize];
            id = if node.place > after {
                found = Some((node.place, id));
                node.left
            } else {
                node.right
            };
        }
        found
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut after = 0;
        std::iter::from_fn(move || {
            let (place, id) = self.next(after)?;
            after = place;
            Some(id)
        })
    }

    /// One tree of two, all of whose places are before those of the other.
    fn join(&mut self, before: u32, behind: u32) -> u32 {
        if before == NONE || behind == NONE {
            return if before == NONE { behind } else { before };
        }
        if self.priority(before) > self.priority(behind) {
            let right = self.nodes[before as usize].right;
            self.nodes[before as usize].right = self.join(right, behind);
            return before;
        }
        let left = self.nodes[behind as usize].left;
        self.nodes[behind as usize].left = self.join(before, left);
        behind
    }

    /// Places well mixed, since they come in order: what keeps the tree low.
    fn priority(&self, id: u32) -> u64 {
        let mixed = self.nodes[id as usize].place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }

    /// Ordered, as long as it says, and nothing outside it has a place.
    pub fn check(&self, name: &str) -> Result<(), String> {
        let mut walked = 0;
        self.check_below(self.root, (0, self.clock + 1), u64::MAX, &mut walked)
            .map_err(|broken| format!("list of {name} objects: {broken}"))?;
        let placed = self.nodes.iter().filter(|node| node.place != 0).count();
        ensure!(
            (walked, placed) == (self.len, self.len),
            "the list of {name} objects counts {}, {walked} are in it, {placed} have a place",
            self.len
        );
        Ok(())
    }

    fn check_below(
        &self,
        id: u32,
        (above, below): (u64, u64),
        most: u64,
        walked: &mut usize,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get(id as usize).filter(|_| *walked <= self.len) else {
            ensure!(id == NONE, "record {id} is not there, or met twice");
            return Ok(());
        };
        *walked += 1;
        ensure!(
            above < node.place && node.place < below,
            "record {id} has place {}, not between {above} and {below}",
            node.place
        );
        let priority = self.priority(id);
        ensure!(priority <= most, "record {id} has a greater priority than the one above it");
        self.check_below(node.left, (above, node.place), priority, walked)?;
        self.check_below(node.right, (node.place, below), priority, walked)
    }

    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}
