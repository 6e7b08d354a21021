//! Push buffers: from their words to methods, and what was sent to each method last.

use std::ops::Range;

use crate::memory::{Refused, zeroed};

/// Methods of a unit: words of its method addresses.
pub const METHODS: usize = 0x1000;
/// Methods below this one are the host's, whatever their subchannel.
const HOST_METHODS: usize = 0x40;
/// The units that methods go to: one for each of the eight subchannels, then the host.
pub const UNITS: usize = 9;
const HOST: usize = 8;

/// What is done with what is sent to a method, besides keeping it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Tell of each word.
    Each,
    /// Tell of all words of a sequence at once.
    All,
}

/// The methods of one subchannel, or of the host.
struct Unit {
    /// What was sent last.
    state: Vec<u32>,
    /// How many words were sent.
    sent: Vec<u64>,
    actions: [Action; METHODS],
}

impl Unit {
    fn new() -> Result<Self, Refused> {
        Ok(Unit { state: zeroed(METHODS)?, sent: zeroed(METHODS)?, actions: [Action::Nothing; METHODS] })
    }
}

/// Words for a method that is to be told of.
pub struct Event {
    pub unit: usize,
    /// Of the header; methods of the host come on any.
    pub subchannel: usize,
    pub method: usize,
    pub action: Action,
    pub data: Data,
}

pub enum Data {
    /// These words of the push.
    Words(Range<usize>),
    /// What the header says.
    Immediate(u32),
}

/// Why an entry is none, and which word of the push it is.
pub struct Malformed {
    pub reason: Reason,
    pub at: usize,
}

#[derive(Clone, Copy)]
pub enum Reason {
    NoHeader,
    MethodsBeyondTheLast,
    DataBeyondThePush,
}

/// Where the words of a sequence go after the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Increment {
    Never,
    Once,
    Always,
}

/// What is left of the words that follow a header.
struct Sequence {
    subchannel: usize,
    method: usize,
    left: usize,
    increment: Increment,
}

const NOTHING_LEFT: Sequence = Sequence { subchannel: 0, method: 0, left: 0, increment: Increment::Never };

/// The front end of a channel: decodes pushes, and keeps the state of what they are for.
pub struct Pbdma {
    units: Vec<Unit>,
    /// The next word of the push.
    at: usize,
    sequence: Sequence,
}

impl Pbdma {
    pub fn new() -> Result<Self, Refused> {
        let units = (0..UNITS).map(|_| Unit::new()).collect::<Result<_, _>>()?;
        Ok(Pbdma { units, at: 0, sequence: NOTHING_LEFT })
    }

    pub fn act(&mut self, unit: usize, method: usize, action: Action) {
        self.units[unit].actions[method] = action;
    }

    pub fn state(&self, unit: usize, methods: Range<usize>) -> &[u32] {
        &self.units[unit].state[methods]
    }

    pub fn set_state(&mut self, unit: usize, method: usize, value: u32) {
        self.units[unit].state[method] = value;
    }

    /// How many words were sent to each method of a unit.
    pub fn sent(&self, unit: usize) -> &[u64] {
        &self.units[unit].sent
    }

    /// Begin another push, whatever is left of the last one.
    pub fn begin(&mut self) {
        (self.at, self.sequence) = (0, NOTHING_LEFT);
    }

    /// Go on in `push`, a whole number of words, as far as the next method that is to be told of.
    pub fn next(&mut self, push: &[[u8; 4]]) -> Result<Option<Event>, Malformed> {
        loop {
            if self.sequence.left > 0 {
                if let Some(event) = self.go_on(push) {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(header) = push.get(self.at) else { return Ok(None) };
            self.at += 1;
            if let Some(event) = self.header(u32::from_le_bytes(*header), push.len())? {
                return Ok(Some(event));
            }
        }
    }

    /// Begin the sequence that `header` says, in a push of `end` words.
    fn header(&mut self, header: u32, end: usize) -> Result<Option<Event>, Malformed> {
        let at = self.at - 1;
        let malformed = |reason| Err(Malformed { reason, at });
        let count = (header >> 16 & 0x1fff) as usize;
        let (subchannel, method) = ((header >> 13 & 7) as usize, (header & 0xfff) as usize);
        let increment = match (header >> 29, header >> 16 & 3) {
            (0, _) if header == 0 => return Ok(None),
            // Controls of subdevices: a channel of nouveau is all of them.
            (0, 1..) => return Ok(None),
            (1, _) => Increment::Always,
            (3, _) => Increment::Never,
            (4, _) => return Ok(self.immediate(subchannel, method, count as u32)),
            (5, _) => Increment::Once,
            (7, _) => {
                self.at = end;
                return Ok(None);
            }
            _ => return malformed(Reason::NoHeader),
        };
        let beyond = match increment {
            Increment::Never => method + 1,
            Increment::Once => method + count.min(2),
            Increment::Always => method + count,
        };
        if count > 0 && beyond > METHODS {
            return malformed(Reason::MethodsBeyondTheLast);
        }
        if count > end - self.at {
            return malformed(Reason::DataBeyondThePush);
        }
        self.sequence = Sequence { subchannel, method, left: count, increment };
        Ok(None)
    }

    fn immediate(&mut self, subchannel: usize, method: usize, value: u32) -> Option<Event> {
        let number = unit_of(subchannel, method);
        let unit = &mut self.units[number];
        unit.state[method] = value;
        unit.sent[method] += 1;
        let action = unit.actions[method];
        let event = Event { unit: number, subchannel, method, action, data: Data::Immediate(value) };
        (action != Action::Nothing).then_some(event)
    }

    /// Go on in a sequence, as far as the next method that is to be told of.
    fn go_on(&mut self, push: &[[u8; 4]]) -> Option<Event> {
        let Sequence { subchannel, method, left, increment } = self.sequence;
        let number = unit_of(subchannel, method);
        let unit = &mut self.units[number];
        let (words, action) = if increment == Increment::Always {
            let end = if number == HOST { HOST_METHODS } else { METHODS };
            let methods = &unit.actions[method..end.min(method + left)];
            match methods.iter().position(|action| *action != Action::Nothing) {
                Some(before) => (before + 1, methods[before]),
                None => (methods.len(), Action::Nothing),
            }
        } else {
            match (unit.actions[method], increment) {
                (Action::Each, _) | (_, Increment::Once) => (1, unit.actions[method]),
                (action, _) => (left, action),
            }
        };
        let from = self.at;
        self.at += words;
        self.sequence.left -= words;
        let mut last = method;
        if increment == Increment::Always {
            last = method + words - 1;
            let states = &mut unit.state[method..=last];
            for (state, word) in states.iter_mut().zip(&push[from..self.at]) {
                *state = u32::from_le_bytes(*word);
            }
            unit.sent[method..=last].iter_mut().for_each(|sent| *sent += 1);
        } else {
            unit.state[method] = u32::from_le_bytes(push[self.at - 1]);
            unit.sent[method] += words as u64;
        }
        match increment {
            Increment::Never => {}
            Increment::Once => {
                (self.sequence.method, self.sequence.increment) = (method + 1, Increment::Never)
            }
            Increment::Always => self.sequence.method = last + 1,
        }
        if action == Action::Nothing {
            return None;
        }
        let told = if increment == Increment::Always { self.at - 1 } else { from };
        let data = Data::Words(told..self.at);
        Some(Event { unit: number, subchannel, method: last, action, data })
    }
}

fn unit_of(subchannel: usize, method: usize) -> usize {
    if method < HOST_METHODS { HOST } else { subchannel }
}
