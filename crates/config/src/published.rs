//! Keys whose private half anybody can have. They are refused for ever, wherever a key is read.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The keys of RFC 8032 (section 7), which RFC 8037 and others use too, and of RFC 8410 (section 10).
const IN_STANDARDS: [&str; 8] = [
    "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw",
    "_FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU",
    "J4EX_BRMcjQPZ9DyMW6Dhs7_vyskKMnFH-98WX8dQm4",
    "7Bcrk61eVjv0kyxw4SRQNMNUZ-8u_U1k6_gZaDRn4r8",
    "38lCXk-Wj38MKfAlnPX5rtaFHCu0rYv7hgz-4KskgpI",
    "Dx0SdJQ7kUFYiRUuiT2A6TJ1ofwLZf1xtLDdoQrX13I",
    "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE",
];

static PUBLISHED: LazyLock<BTreeSet<[u8; 32]>> = LazyLock::new(|| {
    let standards = IN_STANDARDS.iter().filter_map(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok());
    standards.chain(guessable_seeds().filter_map(|seed| public_half(&seed))).collect()
});

/// Whether the private half of this public key is in an example, a standard, or the first that one would guess.
pub(crate) fn is_published(public: &[u8; 32]) -> bool {
    PUBLISHED.contains(public)
}

/// One byte 32 times, as in the bundles that Ferry's repository once held (01 and 02), and 32 bytes counted up.
fn guessable_seeds() -> impl Iterator<Item = [u8; 32]> {
    let counted = [0_u8, 1].map(|first| std::array::from_fn(|i| first.wrapping_add(i.to_le_bytes()[0])));
    (0..=u8::MAX).map(|byte| [byte; 32]).chain(counted)
}

fn public_half(seed: &[u8; 32]) -> Option<[u8; 32]> {
    Ed25519KeyPair::from_seed_unchecked(seed).ok()?.public_key().as_ref().try_into().ok()
}
