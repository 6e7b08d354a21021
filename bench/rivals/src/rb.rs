//! Rival 2: an address space on a red-black tree, built as the kernel's `drm_gpuvm` is.
//!
//! One heap node a mapping, with its links inside, in a tree ordered by address and in a doubly linked list
//! of the mappings of its object. Nodes are removed and new ones inserted for every remainder, as the
//! kernel's drivers do. It is kinder than the kernel in one respect: a request descends once, where the
//! kernel descends again for the overlap test and for the insertion.

use intrusive_collections::{
    Bound, KeyAdapter, LinkedList, LinkedListLink, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter,
};

use crate::record::{Mapping, OP_MAP, Op, Request};
use crate::space::Space;
use crate::split;

#[derive(Default)]
struct Node {
    tree: RBTreeLink,
    list: LinkedListLink,
    mapping: Mapping,
}

intrusive_adapter!(ByAddress = UnsafeRef<Node>: Node { tree => RBTreeLink });
intrusive_adapter!(OfObject = UnsafeRef<Node>: Node { list => LinkedListLink });

impl KeyAdapter<'_> for ByAddress {
    type Key = u64;
    fn get_key(&self, node: &Node) -> u64 {
        node.mapping.addr
    }
}

/// The mappings of each object; index 0 (no object) stays empty.
struct Lists(Vec<LinkedList<OfObject>>);

impl Lists {
    /// Allocate a node and put it at the end of its object's list.
    #[inline]
    fn link(&mut self, mapping: Mapping) -> UnsafeRef<Node> {
        let node = UnsafeRef::from_box(Box::new(Node { mapping, ..Node::default() }));
        if mapping.handle != 0 {
            self.0[mapping.handle as usize].push_back(node.clone());
        }
        node
    }

    /// Take a node that has left the tree off its object's list and free it.
    #[inline]
    fn unlink(&mut self, node: UnsafeRef<Node>) {
        if node.mapping.handle != 0 {
            let list = &mut self.0[node.mapping.handle as usize];
            // SAFETY: `link` put the node on this very list, and only here does it leave it.
            unsafe { list.cursor_mut_from_ptr(&*node) }.remove();
        }
        // SAFETY: `link` made the node from a box; it is now in neither container, so this is its last name.
        drop(unsafe { UnsafeRef::into_box(node) });
    }
}

pub struct Rb {
    tree: RBTree<ByAddress>,
    lists: Lists,
}

impl Rb {
    pub fn new(objects: u32) -> Self {
        let lists = (0..=objects).map(|_| LinkedList::new(OfObject::new())).collect();
        Rb { tree: RBTree::new(ByAddress::new()), lists: Lists(lists) }
    }

    #[inline]
    fn apply(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) {
        let (start, end) = (request.addr, request.end());
        let mut cursor = self.tree.upper_bound_mut(Bound::Included(&start));
        if cursor.get().is_none_or(|node| node.mapping.end() <= start) {
            cursor.move_next();
        }
        let mut next = None;
        while let Some(node) = cursor.get().filter(|node| node.mapping.addr < end) {
            let cut = split::cut(&node.mapping, request, index, out);
            if let Some(node) = cursor.remove() {
                self.lists.unlink(node);
            }
            if let Some(prev) = cut.prev {
                cursor.insert_before(self.lists.link(prev));
            }
            // Only the last one can stick out; it has to wait until the new mapping is in front of it.
            next = cut.next;
        }
        if request.op == OP_MAP {
            let new = request.mapping();
            cursor.insert_before(self.lists.link(new));
            split::map(&new, index, out);
        }
        if let Some(next) = next {
            cursor.insert_before(self.lists.link(next));
        }
    }
}

impl Space for Rb {
    #[inline]
    fn map(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) {
        self.apply(request, index, out);
    }

    #[inline]
    fn unmap(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) {
        self.apply(request, index, out);
    }

    #[inline]
    fn find(&self, addr: u64, range: u64) -> Option<Mapping> {
        let node = self.tree.find(&addr).get()?;
        (node.mapping.range == range).then_some(node.mapping)
    }

    fn walk(&self) -> impl DoubleEndedIterator<Item = Mapping> {
        self.tree.iter().map(|node| node.mapping)
    }
}

impl Drop for Rb {
    fn drop(&mut self) {
        let mut cursor = self.tree.front_mut();
        while let Some(node) = cursor.remove() {
            self.lists.unlink(node);
        }
    }
}
