//! Elements of one to four components, remade from the components of others and from constants.

/// Where a component of the target comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This component of the source.
    Source(usize),
    Constant(u32),
    /// It stays as it is.
    NoWrite,
}

/// How elements are remade.
#[derive(Clone)]
pub struct Components {
    /// Bytes of a component, 1 to 4.
    pub size: usize,
    /// Components of the source's elements, 1 to 4.
    pub from: usize,
    /// What the components of the target's elements come from, 1 to 4.
    pub to: Vec<Origin>,
}

impl Components {
    /// Whether something of the target's elements stays.
    pub fn keeps(&self) -> bool {
        self.to.contains(&Origin::NoWrite)
    }

    /// Remake as many elements as there are.
    pub fn remake(&self, source: &[u8], target: &mut [u8]) {
        match self.size {
            1 => self.remake_sized::<1>(source, target),
            2 => self.remake_sized::<2>(source, target),
            3 => self.remake_sized::<3>(source, target),
            _ => self.remake_sized::<4>(source, target),
        }
    }

    fn remake_sized<const SIZE: usize>(&self, source: &[u8], target: &mut [u8]) {
        let (step, out_step) = (self.from * SIZE, self.to.len() * SIZE);
        for (position, origin) in self.to.iter().enumerate() {
            let components =
                target.chunks_exact_mut(out_step).map(|element| &mut element[position * SIZE..][..SIZE]);
            match *origin {
                Origin::NoWrite => {}
                Origin::Constant(value) => {
                    components.for_each(|component| component.copy_from_slice(&value.to_le_bytes()[..SIZE]));
                }
                Origin::Source(number) => {
                    let elements = source.chunks_exact(step).map(|element| &element[number * SIZE..][..SIZE]);
                    components.zip(elements).for_each(|(to, from)| to.copy_from_slice(from));
                }
            }
        }
    }
}
