//! Regions of an address space: reserved ranges that mappings may have to respect, some of them sparse.

use std::collections::BTreeMap;

/// What regions ask of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// There are no regions.
    #[default]
    Off,
    /// Every mapping lies inside exactly one region (the original series).
    Required,
    /// A mapping that touches a region lies wholly inside it (nouveau's sparse regions).
    Sparse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub addr: u64,
    pub end: u64,
    pub sparse: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Regions {
    pub rule: Rule,
    by_addr: BTreeMap<u64, Region>,
}

impl Regions {
    pub fn with_rule(rule: Rule) -> Self {
        Regions { rule, by_addr: BTreeMap::new() }
    }

    pub fn len(&self) -> usize {
        self.by_addr.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.by_addr.values()
    }

    /// The first region that overlaps `[addr, end)`.
    pub fn overlapping(&self, addr: u64, end: u64) -> Option<&Region> {
        let (_, region) = self.by_addr.range(..end).next_back()?;
        if region.end <= addr {
            return None;
        }
        // The last one may have lower neighbours in the range; the lowest is what callers want to see.
        let before = self.by_addr.range(..=addr).next_back().map(|(_, region)| region);
        before
            .filter(|region| region.end > addr)
            .or_else(|| self.by_addr.range(addr..end).next().map(|(_, region)| region))
    }

    /// The region that `[addr, end)` lies inside.
    pub fn enclosing(&self, addr: u64, end: u64) -> Option<&Region> {
        let (_, region) = self.by_addr.range(..=addr).next_back()?;
        (end <= region.end).then_some(region)
    }

    pub fn find(&self, addr: u64, end: u64) -> Option<&Region> {
        self.by_addr.get(&addr).filter(|region| region.end == end)
    }

    /// The caller has checked that nothing overlaps.
    pub fn insert(&mut self, region: Region) {
        self.by_addr.insert(region.addr, region);
    }

    pub fn remove(&mut self, addr: u64) {
        self.by_addr.remove(&addr);
    }

    /// True if the rule lets a mapping be at `[addr, end)`.
    #[inline(always)]
    pub fn allow(&self, addr: u64, end: u64) -> bool {
        match self.rule {
            Rule::Off => true,
            Rule::Required => self.enclosing(addr, end).is_some(),
            Rule::Sparse => self.by_addr.is_empty() || self.allow_sparse(addr, end),
        }
    }

    fn allow_sparse(&self, addr: u64, end: u64) -> bool {
        self.enclosing(addr, end).is_some() || self.overlapping(addr, end).is_none()
    }

    pub fn check(&self) -> Result<(), String> {
        let mut last = 0;
        for region in self.iter() {
            if region.addr >= region.end || region.addr < last {
                return Err(format!("region {:#x}..{:#x} is empty or overlaps", region.addr, region.end));
            }
            last = region.end;
        }
        Ok(())
    }
}
