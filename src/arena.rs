//! Arrays that grow without moving: chunks of a fixed number of elements, found by id.
//!
//! A vector that grows copies everything and leaves its old memory behind; at a million mappings that is as much
//! memory again. Here growing costs one chunk, and ids stay valid.

use std::ops::{Index, IndexMut};

use crate::memory::{Refused, reserve};

pub struct Arena<T, const CHUNK: usize> {
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T: Clone, const CHUNK: usize> Arena<T, CHUNK> {
    pub fn new() -> Self {
        Arena { chunks: Vec::new(), len: 0 }
    }

    /// Ids given out so far: 0..len.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Take the memory for `additional` more elements; `filler` fills what is not used yet.
    #[inline]
    pub fn reserve(&mut self, additional: usize, filler: &T) -> Result<(), Refused> {
        if self.chunks.len() * CHUNK - self.len >= additional && !crate::memory::armed() {
            return Ok(());
        }
        self.grow(additional, filler)
    }

    #[cold]
    fn grow(&mut self, additional: usize, filler: &T) -> Result<(), Refused> {
        let chunks = (self.len + additional).div_ceil(CHUNK).saturating_sub(self.chunks.len());
        reserve(&mut self.chunks, chunks)?;
        for _ in 0..chunks {
            let mut chunk = Vec::new();
            reserve(&mut chunk, CHUNK)?;
            chunk.resize(CHUNK, filler.clone());
            self.chunks.extend(chunk.into_boxed_slice().try_into().ok());
        }
        Ok(())
    }

    /// Ids that there is memory for.
    pub fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Take memory without having reserved it: what `reserve` takes nearly always suffices.
    #[cold]
    pub fn extend(&mut self, filler: &T) {
        self.chunks.extend(vec![filler.clone(); CHUNK].into_boxed_slice().try_into().ok());
    }

    #[inline(always)]
    pub fn push(&mut self, element: T) -> u32 {
        let id = self.len as u32;
        if self.len == self.chunks.len() * CHUNK {
            self.extend(&element);
        }
        self.len += 1;
        self[id] = element;
        id
    }

    #[inline(always)]
    pub fn get(&self, id: u32) -> Option<&T> {
        ((id as usize) < self.len).then(|| &self[id])
    }

    /// Where element `id` would be, for prefetching; any id is allowed.
    #[inline(always)]
    pub fn address(&self, id: u32) -> *const T {
        match self.chunks.get(id as usize / CHUNK) {
            Some(chunk) => &raw const chunk[id as usize % CHUNK],
            None => std::ptr::null(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len)
    }

    /// Two different elements.
    pub fn pair(&mut self, a: u32, b: u32) -> (&mut T, &mut T) {
        let (chunk_a, chunk_b) = (a as usize / CHUNK, b as usize / CHUNK);
        let (index_a, index_b) = (a as usize % CHUNK, b as usize % CHUNK);
        if chunk_a == chunk_b {
            let [a, b] = self.chunks[chunk_a].get_disjoint_mut([index_a, index_b]).expect("two elements");
            return (a, b);
        }
        let [a, b] = self.chunks.get_disjoint_mut([chunk_a, chunk_b]).expect("two chunks");
        (&mut a[index_a], &mut b[index_b])
    }

    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>() + self.chunks.capacity() * size_of::<usize>()
    }
}

impl<T, const CHUNK: usize> Index<u32> for Arena<T, CHUNK> {
    type Output = T;

    #[inline(always)]
    fn index(&self, id: u32) -> &T {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}

impl<T, const CHUNK: usize> IndexMut<u32> for Arena<T, CHUNK> {
    #[inline(always)]
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}
