//! The messages between an engine and its keeper: `docs/keeper-protocol.md`. Each is one packet, its numbers big-endian.

/// The versions of the protocol that this program speaks, oldest and newest.
pub(crate) const VERSIONS: (u16, u16) = (1, 1);

/// One message may carry at most this many descriptors: the kernel's bound, `SCM_MAX_FD`.
pub const MAX_BATCH: usize = 253;

/// No message is longer.
pub(crate) const MAX_MESSAGE: usize = 2 + MAX_BATCH * TAG_LEN;

/// No message of an engine is longer. A Hello may grow up to this in later versions.
pub(crate) const MAX_REQUEST: usize = 64;

const TAG_LEN: usize = 32;
const MAGIC: [u8; 4] = *b"FRYK";

const HELLO: u8 = 0x01;
const STORE: u8 = 0x02;
const REMOVE: u8 = 0x03;
const ALIVE: u8 = 0x04;
const READY: u8 = 0x05;
const COMPLETE: u8 = 0x06;
const BYE: u8 = 0x07;
const WELCOME: u8 = 0x81;
const INHERIT: u8 = 0x82;
const CONFIRMED: u8 = 0x83;
const REFUSED: u8 = 0x84;
const REJECTED: u8 = 0x85;

/// What a descriptor is stored under. The engine chooses it; to the keeper it is opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub [u8; TAG_LEN]);

/// What an engine says in its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    /// It still has its descriptors, and will store all of them again: nothing is to be inherited.
    pub(crate) continues: bool,
    /// It sends signs of life, and may be killed when it does not.
    pub(crate) sends_alive: bool,
}

/// What the keeper answers an engine that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) version: u16,
    /// The engine is started for at least the third time after crashes within a short time.
    pub(crate) crash_loop: bool,
    pub(crate) max_descriptors: u32,
    /// How many descriptors follow in Inherit messages.
    pub(crate) stored: u32,
    pub(crate) alive_timeout_millis: u32,
    /// Crashes of recent engines.
    pub(crate) crashes: u32,
}

/// Why a descriptor was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// The keeper holds as many descriptors as it may.
    Limit,
    /// The keeper has no descriptor left to receive one.
    NoDescriptors,
}

/// Why an engine is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RejectedBy {
    Version,
    /// Another engine lives, and this one would have to end it.
    OtherEngine,
}

/// From the engine to the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Hello(Hello),
    /// With one descriptor.
    Store {
        seq: u64,
        tag: Tag,
    },
    Remove {
        seq: u64,
        tag: Tag,
    },
    Alive,
    Ready,
    /// Everything was stored again; what was not is to be dropped.
    Complete,
    /// An orderly end: nothing is to be kept.
    Bye,
}

/// From the keeper to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Welcome(Welcome),
    /// With as many descriptors as tags, in their order.
    Inherit(Vec<Tag>),
    /// All requests up to this one were carried out or refused.
    Confirmed {
        through: u64,
    },
    Refused {
        seq: u64,
        tag: Tag,
        by: RefusedBy,
    },
    Rejected {
        by: RejectedBy,
        oldest: u16,
        newest: u16,
    },
}

/// Not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Hello(hello) => {
                let flags = u32::from(hello.continues) | u32::from(hello.sends_alive) << 1;
                let mut out = vec![HELLO];
                out.extend(MAGIC);
                out.extend(hello.oldest.to_be_bytes());
                out.extend(hello.newest.to_be_bytes());
                out.extend(flags.to_be_bytes());
                out
            }
            Self::Store { seq, tag } => about(STORE, seq, &tag),
            Self::Remove { seq, tag } => about(REMOVE, seq, &tag),
            Self::Alive => vec![ALIVE],
            Self::Ready => vec![READY],
            Self::Complete => vec![COMPLETE],
            Self::Bye => vec![BYE],
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        let request = match input.byte()? {
            HELLO => {
                if input.array()? != MAGIC {
                    return Err(Malformed);
                }
                let (oldest, newest, flags) = (input.u16()?, input.u16()?, input.u32()?);
                // What a later version appends, and its further flags, are for those who know them.
                return Ok(Self::Hello(Hello {
                    oldest,
                    newest,
                    continues: flags & 1 != 0,
                    sends_alive: flags & 2 != 0,
                }));
            }
            STORE => Self::Store { seq: input.u64()?, tag: input.tag()? },
            REMOVE => Self::Remove { seq: input.u64()?, tag: input.tag()? },
            ALIVE => Self::Alive,
            READY => Self::Ready,
            COMPLETE => Self::Complete,
            BYE => Self::Bye,
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(request)
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => {
                let mut out = vec![WELCOME];
                out.extend(welcome.version.to_be_bytes());
                let numbers = [
                    u32::from(welcome.crash_loop),
                    welcome.max_descriptors,
                    welcome.stored,
                    welcome.alive_timeout_millis,
                    welcome.crashes,
                ];
                out.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
                out
            }
            Self::Inherit(tags) => {
                let mut out = vec![INHERIT, u8::try_from(tags.len()).unwrap_or(u8::MAX)];
                out.extend(tags.iter().flat_map(|tag| tag.0));
                out
            }
            Self::Confirmed { through } => {
                let mut out = vec![CONFIRMED];
                out.extend(through.to_be_bytes());
                out
            }
            Self::Refused { seq, tag, by } => {
                let mut out = about(REFUSED, *seq, tag);
                out.push(match by {
                    RefusedBy::Limit => 1,
                    RefusedBy::NoDescriptors => 2,
                });
                out
            }
            Self::Rejected { by, oldest, newest } => {
                let reason = match by {
                    RejectedBy::Version => 1,
                    RejectedBy::OtherEngine => 2,
                };
                let mut out = vec![REJECTED, reason];
                out.extend(oldest.to_be_bytes());
                out.extend(newest.to_be_bytes());
                out
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        let reply = match input.byte()? {
            WELCOME => Self::Welcome(Welcome {
                version: input.u16()?,
                crash_loop: input.u32()? & 1 != 0,
                max_descriptors: input.u32()?,
                stored: input.u32()?,
                alive_timeout_millis: input.u32()?,
                crashes: input.u32()?,
            }),
            INHERIT => {
                let count = input.byte()?;
                Self::Inherit((0..count).map(|_| input.tag()).collect::<Result<_, _>>()?)
            }
            CONFIRMED => Self::Confirmed { through: input.u64()? },
            REFUSED => Self::Refused {
                seq: input.u64()?,
                tag: input.tag()?,
                by: if input.byte()? == 1 { RefusedBy::Limit } else { RefusedBy::NoDescriptors },
            },
            REJECTED => Self::Rejected {
                by: if input.byte()? == 1 { RejectedBy::Version } else { RejectedBy::OtherEngine },
                oldest: input.u16()?,
                newest: input.u16()?,
            },
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(reply)
    }
}

fn about(kind: u8, seq: u64, tag: &Tag) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 8 + TAG_LEN + 1);
    out.push(kind);
    out.extend(seq.to_be_bytes());
    out.extend(tag.0);
    out
}

/// What is left of a message.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn tag(&mut self) -> Result<Tag, Malformed> {
        self.array().map(Tag)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use ferry_golden::{Golden, hex, unhex};

    use super::*;

    type Named<T> = Vec<(&'static str, T)>;

    /// Every message, with a name.
    fn messages() -> (Named<Request>, Named<Reply>) {
        let tag = Tag(std::array::from_fn(|at| 0xa0 + at as u8));
        let hello = |continues, sends_alive| Request::Hello(Hello { oldest: 1, newest: 2, continues, sends_alive });
        let requests = vec![
            ("Hello, continues", hello(true, false)),
            ("Hello, sends alive", hello(false, true)),
            ("Store", Request::Store { seq: 7, tag }),
            ("Remove", Request::Remove { seq: 8, tag }),
            ("Alive", Request::Alive),
            ("Ready", Request::Ready),
            ("Complete", Request::Complete),
            ("Bye", Request::Bye),
        ];
        let welcome = Welcome {
            version: 1,
            crash_loop: true,
            max_descriptors: 5,
            stored: 6,
            alive_timeout_millis: 10_000,
            crashes: 3,
        };
        let rejected = |by| Reply::Rejected { by, oldest: 3, newest: 4 };
        let replies = vec![
            ("Welcome, crash loop", Reply::Welcome(welcome)),
            ("Welcome", Reply::Welcome(Welcome { crash_loop: false, ..welcome })),
            ("Inherit", Reply::Inherit(vec![tag, Tag([0xcd; TAG_LEN])])),
            ("Confirmed", Reply::Confirmed { through: 9 }),
            ("Refused, limit", Reply::Refused { seq: 7, tag, by: RefusedBy::Limit }),
            ("Refused, no descriptors", Reply::Refused { seq: 7, tag, by: RefusedBy::NoDescriptors }),
            ("Rejected, version", rejected(RejectedBy::Version)),
            ("Rejected, other engine", rejected(RejectedBy::OtherEngine)),
        ];
        (requests, replies)
    }

    fn golden() -> Golden {
        Golden::of(env!("CARGO_MANIFEST_DIR"), "protocol", "txt", "VERSIONS of crates/keeper/src/wire.rs")
    }

    #[test]
    fn messages_are_as_in_the_golden_file_of_their_version() {
        let (requests, replies) = messages();
        let line = |name: &str, bytes: &[u8]| format!("{name}: {}\n", hex(bytes));
        let requests = requests.iter().map(|(name, request)| line(name, &request.encode()));
        let replies = replies.iter().map(|(name, reply)| line(name, &reply.encode()));
        golden().hold(VERSIONS.1.into(), &requests.chain(replies).collect::<String>());
    }

    /// A later version of it may take away no message that a build of an earlier one sends.
    #[test]
    fn messages_of_the_golden_file_of_every_version_are_read_as_they_were_meant() {
        let (requests, replies) = messages();
        for version in VERSIONS.0..=VERSIONS.1 {
            let text = golden().read(version.into());
            let bytes =
                |name: &str| unhex(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap());
            for (name, request) in &requests {
                assert_eq!(Request::decode(&bytes(name)), Ok(*request), "version {version}: {name}");
            }
            for (name, reply) in &replies {
                assert_eq!(Reply::decode(&bytes(name)).as_ref(), Ok(reply), "version {version}: {name}");
            }
        }
    }

    #[test]
    fn a_message_cut_short_or_too_long_is_malformed() {
        let whole = Request::Store { seq: 1, tag: Tag([1; 32]) }.encode();
        for end in 0..whole.len() {
            assert_eq!(Request::decode(&whole[..end]), Err(Malformed));
        }
        assert_eq!(Request::decode(&[whole.as_slice(), &[0]].concat()), Err(Malformed));
        assert_eq!(Request::decode(&[0x55]), Err(Malformed));
    }

    #[test]
    fn a_hello_of_a_later_version_is_understood() {
        let hello = Hello { oldest: 1, newest: 9, continues: false, sends_alive: true };
        let later = [Request::Hello(hello).encode(), vec![1, 2, 3]].concat();
        assert_eq!(Request::decode(&later), Ok(Request::Hello(hello)));
    }
}
