//! Durations, sizes and counts that are out of range.

use crate::mistakes::added;

#[test]
fn durations_are_held_to_their_range() {
    added("rotation: {every: 999ms}", "rotation.every", "out of range", "from 1s to 24h");
    added("rotation: {every: 24h1s}", "rotation.every", "out of range", "from 1s to 24h");
    added("resume: {window: 0s}", "resume.window", "out of range", "from 1s to 24h");
    added("resume: {window: 25h}", "resume.window", "out of range", "from 1s to 24h");
    added("liveness: 900ms", "liveness", "out of range", "from 1s");
    added("open_timeout: 0s", "open_timeout", "out of range", "from 1ms");
    added("drain: -1s", "drain", "not a duration", "`30s`");
    added("drain: 30x", "drain", "`30x` is not a duration", "a unit, such as `500ms`, `30s`");
    added("liveness: 0", "liveness", "out of range", "from 1s");
    added("drain: true", "drain", "`true` is not a duration", "");
}

#[test]
fn sizes_are_held_to_their_range() {
    added("resume: {buffer: 65535}", "resume.buffer", "too small", "at least 64KiB");
    added("rotation: {bytes: 1KiB}", "rotation.bytes", "too small", "at least 64KiB");
    added("limits: {memory: 0}", "limits.memory", "too small", "at least 64KiB");
    added("limits: {memory: 512Mb}", "limits.memory", "not a size", "`GB` (1000s)");
    added("resume: {buffer: 513MiB}", "resume.buffer", "513MiB does not fit", "lower the buffer");
    let small = "limits: {memory: 8MiB}\nresume: {buffer: 16MiB}";
    added(small, "resume.buffer", "`limits.memory` of 8MiB", "raise the memory");
}

#[test]
fn counts_are_held_to_their_range() {
    added("rotation: {max_per_second: 0}", "rotation.max_per_second", "`0`", "from 1 to");
    added("limits: {sessions: 0}", "limits.sessions", "`0`", "from 1 to");
    added("limits: {handshakes: many}", "limits.handshakes", "`many`", "from 1 to");
    added("limits: {sessions: 4294967296}", "limits.sessions", "`4294967296`", "to 4294967295");
    added("warm_links: {own: 257}", "warm_links.own", "`257`", "from 0 to 256");
    added("warm_links: {offered: -1}", "warm_links.offered", "`-1`", "from 0 to 256");
    added("warm_links: {offered: 1.5}", "warm_links.offered", "`1.5`", "from 0 to 256");
}
