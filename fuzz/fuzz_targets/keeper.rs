//! Any engines at a keeper: nothing that they send makes it panic, and whoever takes over inherits exactly what the engine
//! before had stored, each descriptor under its own tag.
#![no_main]

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Instant;

use arbitrary::Arbitrary;
use ferry_keeper::fuzzing::{self, Answer, Engine, Said};
use ferry_keeper::{Keeper, Options, Tag};
use libfuzzer_sys::fuzz_target;

const MAX_STORED: u32 = 3;

#[derive(Arbitrary, Debug)]
enum Step {
    Hello { engine: u8, flags: u8 },
    Store { engine: u8, tag: u8, file: u8, count: u8 },
    Remove { engine: u8, tag: u8 },
    Complete { engine: u8 },
    Bye { engine: u8 },
    Bytes { engine: u8, bytes: Vec<u8>, file: Option<u8> },
    Leave { engine: u8 },
}

struct World {
    keeper: Keeper,
    path: PathBuf,
    files: Vec<File>,
    engines: [Option<Life>; 3],
    /// What is stored: which file, and whether an engine that continues has not stored it again.
    stored: HashMap<Tag, (u64, bool)>,
}

struct Life {
    engine: Engine,
    continues: Option<bool>,
    serves: bool,
    to_inherit: Option<u32>,
}

fn number(file: &File) -> u64 {
    file.metadata().expect("of an open file").ino()
}

fn tagged(tag: u8) -> [u8; 32] {
    [tag % 5; 32]
}

impl World {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("ferry-fuzz-{}", std::process::id()));
        let path = directory.join("keeper.sock");
        let options = Options { max_descriptors: MAX_STORED, ..Options::default() };
        let keeper = Keeper::bind(&path, options).expect("a keeper");
        let file = |at| {
            let path = directory.join(format!("file-{at}"));
            File::options().create(true).write(true).truncate(false).open(path).expect("a file")
        };
        Self { keeper, path, files: (0..4).map(file).collect(), engines: [None, None, None], stored: HashMap::new() }
    }

    /// Until the keeper has nothing to do, and every engine has read what it was sent.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.keeper.turn(None, Some(Instant::now())).expect("a turn");
            for at in 0..self.engines.len() {
                self.listen(at);
            }
        }
    }

    fn listen(&mut self, at: usize) {
        while let Some(life) = &mut self.engines[at]
            && let Ok((answer, descriptors)) = life.engine.receive()
        {
            match answer {
                Answer::Welcome { stored } => {
                    life.serves = true;
                    let continues = life.continues.expect("after a Hello");
                    assert_eq!(stored, if continues { 0 } else { self.stored.len() as u32 });
                    life.to_inherit = Some(stored);
                    if continues {
                        self.stored.values_mut().for_each(|(_, stale)| *stale = true);
                    }
                }
                Answer::Inherit(tags) => {
                    assert_eq!(tags.len(), descriptors.len());
                    let left = life.to_inherit.as_mut().expect("after a Welcome");
                    *left -= tags.len() as u32;
                    for (tag, descriptor) in tags.iter().zip(descriptors) {
                        assert_eq!(self.stored[tag].0, number(&File::from(descriptor)), "a wrong descriptor");
                    }
                }
                Answer::Other => {}
            }
        }
    }

    fn send(&mut self, at: u8, bytes: &[u8], files: &[u8]) {
        let at = usize::from(at) % self.engines.len();
        if self.engines[at].is_none() {
            let Ok(engine) = Engine::connect(&self.path) else { return };
            self.engines[at] = Some(Life { engine, continues: None, serves: false, to_inherit: None });
            self.settle();
        }
        let files: Vec<usize> = files.iter().map(|file| usize::from(*file) % self.files.len()).collect();
        let descriptors: Vec<_> = files.iter().map(|file| self.files[*file].as_fd()).collect();
        let Some(life) = &mut self.engines[at] else { return };
        if bytes.is_empty() && descriptors.is_empty() {
            return;
        }
        if life.engine.send(bytes, &descriptors).is_err() {
            self.engines[at] = None;
            return;
        }
        let said = fuzzing::message(bytes).filter(|said| {
            // What a request must be, and may be at this point.
            let carried = usize::from(matches!(said, Said::Store(_)));
            let in_turn = match said {
                Said::Hello { is_spoken, .. } => *is_spoken && life.continues.is_none(),
                _ => life.serves,
            };
            bytes.len() <= 64 && files.len() == carried && in_turn
        });
        let mut ends = said.is_none();
        match said {
            Some(Said::Hello { continues, .. }) => life.continues = Some(continues),
            Some(Said::Store(tag)) => {
                if self.stored.contains_key(&tag) || self.stored.len() < MAX_STORED as usize {
                    self.stored.insert(tag, (number(&self.files[files[0]]), false));
                }
            }
            Some(Said::Remove(tag)) => _ = self.stored.remove(&tag),
            Some(Said::Complete) => self.stored.retain(|_, (_, stale)| !*stale),
            Some(Said::Bye) => {
                self.stored.clear();
                ends = true;
            }
            Some(Said::Sign) | None => {}
        }
        if ends {
            // The keeper has heard it before the engine is gone.
            self.keeper.turn(None, Some(Instant::now())).expect("a turn");
            self.listen(at);
            self.engines[at] = None;
        }
        self.settle();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Hello { engine, flags } => {
                let hello = [&[1][..], b"FRYK", &[0, 1, 0, 1, 0, 0, 0, flags % 4]].concat();
                self.send(*engine, &hello, &[]);
            }
            Step::Store { engine, tag, file, count } => {
                let message = [&[2][..], &[0; 8], &tagged(*tag)].concat();
                let files = [*file; 3];
                // One is right; none and too many are not.
                let count = if *count < 200 { 1 } else { usize::from(*count) % 4 };
                self.send(*engine, &message, &files[..count]);
            }
            Step::Remove { engine, tag } => self.send(*engine, &[&[3][..], &[0; 8], &tagged(*tag)].concat(), &[]),
            Step::Complete { engine } => self.send(*engine, &[6], &[]),
            Step::Bye { engine } => self.send(*engine, &[7], &[]),
            Step::Bytes { engine, bytes, file } => self.send(*engine, bytes, file.as_slice()),
            Step::Leave { engine } => {
                self.engines[usize::from(*engine) % self.engines.len()] = None;
                self.settle();
            }
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut world = World::new();
    for step in steps.iter().take(60) {
        world.step(step);
        assert_eq!(world.keeper.stored(), world.stored.len());
    }
    world.engines = [None, None, None];
    world.settle();
    world.step(&Step::Hello { engine: 0, flags: 0 });
    let heir = world.engines[0].as_ref().expect("it is taken");
    assert!(heir.serves && heir.to_inherit == Some(0), "an heir that does not get all");
});
