//! Identity files, and `load`, which reads one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::support::{KEY_1, fine, pem, refused, with};
use ferry_config::{Identity, IdentityError, Report, load};

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// `text` as a key file that is as private as it should be.
    fn key(&self, text: impl AsRef<[u8]>) -> PathBuf {
        self.write("identity.key", text, 0o600)
    }

    fn load(&self, text: &str) -> Result<ferry_config::Loaded, Report> {
        load(&self.write("tunnel.yaml", text, 0o644))
    }
}

/// Made for this run: no private key is in the repository.
static OURS: LazyLock<Identity> = LazyLock::new(|| Identity::generate().unwrap());

fn our_key() -> String {
    OURS.to_pem().expose().clone()
}

/// Our key as PKCS#8 version 1 in base64, without the boundaries of PEM.
fn our_base64() -> String {
    STANDARD.encode(OURS.pkcs8_der().expose())
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The key whose seed this is as PKCS#8 version 1 in PEM.
fn of_seed(seed: [u8; 32]) -> String {
    let der = [hex("302e020100300506032b657004220420"), seed.to_vec()].concat();
    pem("PRIVATE KEY", &STANDARD.encode(der))
}

#[test]
fn an_identity_that_is_published_is_refused_for_ever() {
    let dir = Dir::new();
    let counted = std::array::from_fn(|i| u8::try_from(i).unwrap());
    // The key of RFC 8410, section 10.3.
    let standard = hex("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842").try_into().unwrap();
    for seed in [[1; 32], [2; 32], [0; 32], [0xff; 32], counted, standard] {
        let error = Identity::load(&dir.key(of_seed(seed))).unwrap_err();
        assert!(matches!(error, IdentityError::Published(_)), "{error}");
        assert!(error.hint().contains("ferry keygen --out"), "{}", error.hint());
        let report = dir.load(&fine()).unwrap_err();
        assert!(report.to_string().contains("identity: "), "{report}");
        assert!(report.to_string().contains("is published, so anybody has it"), "{report}");
    }
    Identity::load(&dir.key(our_key())).unwrap();
}

#[test]
fn a_published_key_is_no_peer_s() {
    // 32 times 01 and 02, as in the bundles that the repository once held, and RFC 8032, section 7.1.
    for key in [
        "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w",
        "gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q",
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    ] {
        let report = refused(&with(KEY_1, &format!("ferry:pub:{key}")));
        let [problem] = report.problems() else { panic!("{report}") };
        assert_eq!(problem.path, "peers[0].keys[0]");
        assert!(problem.message.contains("published"), "{report}");
        assert!(problem.hint.contains("ferry keygen"), "{report}");
    }
}

#[test]
fn a_new_identity_is_private_and_reads_back() {
    let dir = Dir::new();
    let path = dir.path("identity.key");
    let identity = Identity::generate().unwrap();
    identity.write_new(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = Identity::load(&path).unwrap();
    assert_eq!(loaded, identity);
    assert_eq!(loaded.pkcs8_der().expose(), identity.pkcs8_der().expose());
    assert_ne!(loaded, Identity::generate().unwrap());
}

#[test]
fn an_identity_never_overwrites() {
    let dir = Dir::new();
    let path = dir.write("identity.key", "precious", 0o600);
    let dangling = dir.path("link");
    symlink(dir.path("nowhere"), &dangling).unwrap();
    for path in [&path, &dangling] {
        let error = Identity::generate().unwrap().write_new(path).unwrap_err();
        assert!(matches!(error, IdentityError::Exists(_)), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let error = Identity::generate().unwrap().write_new(&dir.path("no/such/dir")).unwrap_err();
    assert!(matches!(error, IdentityError::Write(..)), "{error}");
}

#[test]
fn pkcs8_of_either_version_is_read() {
    let dir = Dir::new();
    // As in RFC 8410, section 10.3: version 1, with attributes, and as version 2 with its public key.
    let seed = &OURS.pkcs8_der().expose()[16..];
    let attributes = hex("a01f301d060a2a864886f70d01090914310f0c0d437572646c6520436861697273");
    let public = [&hex("812100")[..], OURS.public_key().as_bytes()].concat();
    let versions = [
        [&hex("302e020100300506032b657004220420")[..], seed].concat(),
        [&hex("304f020100300506032b657004220420")[..], seed, &attributes].concat(),
        [&hex("3072020101300506032b657004220420")[..], seed, &attributes, &public].concat(),
    ];
    for version in versions {
        let lines = STANDARD.encode(version);
        let (first, rest) = lines.split_at(60);
        let text = format!("a comment\n{}\n", pem("PRIVATE KEY", &format!("{first}\r\n{rest}")));
        let identity = Identity::load(&dir.key(text)).unwrap();
        assert_eq!(identity.public_key(), OURS.public_key());
        assert_eq!(identity.pkcs8_der().expose(), OURS.pkcs8_der().expose());
    }
}

#[test]
fn only_private_modes_are_accepted() {
    let dir = Dir::new();
    for mode in [0o600, 0o640, 0o440, 0o400, 0o700] {
        Identity::load(&dir.write("key", our_key(), mode)).unwrap();
    }
    for mode in [0o644, 0o604, 0o660, 0o620, 0o602, 0o666, 0o777, 0o444] {
        let error = Identity::load(&dir.write("key", our_key(), mode)).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed(_, seen) if seen == mode), "{error}");
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        assert!(error.hint().starts_with("run `chmod 600"), "{}", error.hint());
    }
}

#[test]
fn a_mounted_secret_is_judged_by_the_file_behind_its_links() {
    let dir = Dir::new();
    fs::create_dir(dir.path("..data")).unwrap();
    dir.write("..data/key", our_key(), 0o440);
    symlink("..data/key", dir.path("key")).unwrap();
    Identity::load(&dir.path("key")).unwrap();
    dir.write("..data/key", our_key(), 0o644);
    let error = Identity::load(&dir.path("key")).unwrap_err();
    assert!(matches!(error, IdentityError::Exposed(..)), "{error}");
}

#[test]
fn a_directory_in_which_others_may_replace_the_key_is_refused_where_it_is_named_and_where_it_is() {
    let dir = Dir::new();
    for name in ["named", "real"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    dir.write("real/key", our_key(), 0o600);
    symlink("../real/key", dir.path("named/key")).unwrap();
    let set = |name: &str, mode| fs::set_permissions(dir.path(name), fs::Permissions::from_mode(mode)).unwrap();
    for exposed in ["named", "real"] {
        // What a secret in a pod has is sticky.
        for mode in [0o700, 0o755, 0o775, 0o1777, 0o3777] {
            set(exposed, mode);
            Identity::load(&dir.path("named/key")).unwrap();
        }
        for mode in [0o777, 0o757, 0o702, 0o2777] {
            set(exposed, mode);
            let error = Identity::load(&dir.path("named/key")).unwrap_err();
            assert!(matches!(error, IdentityError::ExposedDirectory(_, seen) if seen == mode), "{error}");
            assert!(error.to_string().contains(exposed) && error.hint().starts_with("run `chmod o-w"), "{error}");
        }
        set(exposed, 0o700);
    }
}

#[test]
fn what_is_no_file_is_told_apart() {
    let dir = Dir::new();
    let error = Identity::load(&dir.path("nothing")).unwrap_err();
    assert!(matches!(error, IdentityError::Missing(_)), "{error}");
    assert!(error.hint().contains("ferry keygen --out"));
    let error = Identity::load(dir.0.path()).unwrap_err();
    assert!(matches!(error, IdentityError::Directory(_)), "{error}");
    let error = Identity::load(Path::new("/dev/null")).unwrap_err();
    assert!(matches!(error, IdentityError::NotAFile(_)), "{error}");
    let error = Identity::load(&dir.key(our_key() + &" ".repeat(16 * 1024))).unwrap_err();
    assert!(matches!(error, IdentityError::TooLarge(_)), "{error}");
}

#[test]
fn what_is_no_key_is_told_apart() {
    let dir = Dir::new();
    let whole = our_base64();
    let cut = &whole[..60];
    let cases = [
        (String::new(), "no PEM block"),
        (OURS.public_key().to_string(), "no PEM block"),
        (our_key().replace("END", "FIN"), "no end"),
        (our_key() + &our_key(), "more than one PEM block"),
        (pem("PRIVATE KEY", "MC4C AQ!"), "not base64"),
        (pem("PRIVATE KEY", cut), "damaged"),
        (pem("PRIVATE KEY", ""), "damaged"),
        (pem("ENCRYPTED PRIVATE KEY", &whole), "encrypted"),
        (pem("OPENSSH PRIVATE KEY", &whole), "OpenSSH"),
        (pem("PUBLIC KEY", &whole), "public key"),
        (pem("CERTIFICATE", &whole), "certificate"),
    ];
    for (text, why) in cases {
        let error = Identity::load(&dir.key(&text)).unwrap_err();
        assert!(matches!(error, IdentityError::NotAKey(..)), "{error}\n{text}");
        assert!(error.to_string().contains(why), "{error}\n{text}");
        assert!(error.hint().contains("ferry keygen"));
    }
    let error = Identity::load(&dir.key(b"\xff\xfe")).unwrap_err();
    assert!(error.to_string().contains("not text"), "{error}");
}

#[test]
fn a_key_of_another_algorithm_is_told_apart() {
    let dir = Dir::new();
    let x25519 = STANDARD.encode([hex("302e020100300506032b656e04220420"), vec![7; 32]].concat());
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap().to_pkcs8v1().unwrap();
    let p256 = STANDARD.encode(p256.as_ref());
    let cases = [
        pem("PRIVATE KEY", &x25519),
        pem("PRIVATE KEY", &p256),
        pem("EC PRIVATE KEY", "AAAA"),
        pem("RSA PRIVATE KEY", "AAAA"),
    ];
    for text in cases {
        let error = Identity::load(&dir.key(&text)).unwrap_err();
        assert!(matches!(error, IdentityError::WrongAlgorithm(_)), "{error}\n{text}");
    }
}

#[test]
fn loading_reads_the_identity_beside_the_file() {
    let dir = Dir::new();
    dir.key(our_key());
    let loaded = dir.load(&fine()).unwrap();
    assert_eq!(loaded.tunnel.identity, *OURS);
    assert_eq!(loaded.tunnel.name.as_str(), "us");
    assert_eq!(loaded.warnings, []);
    assert!(!format!("{loaded:?}").contains("pkcs8"));
}

#[test]
fn the_identity_is_reported_together_with_everything_else() {
    let dir = Dir::new();
    let report = dir.load(&(fine() + "liveness: soon\n")).unwrap_err();
    let paths: Vec<_> = report.problems().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["identity", "liveness"]);
    let shown = report.to_string();
    let path = dir.path("tunnel.yaml").display().to_string();
    assert!(shown.starts_with(&format!("{path}: identity: there is no file")), "{shown}");
    dir.write("identity.key", our_key(), 0o644);
    let report = dir.load(&fine()).unwrap_err();
    assert!(report.problems()[0].message.contains("0644"), "{report}");
}

#[test]
fn our_own_key_is_no_peer_s() {
    let dir = Dir::new();
    dir.key(our_key());
    let report = dir.load(&fine().replace(KEY_1, &OURS.public_key().to_string())).unwrap_err();
    let [problem] = report.problems() else { panic!("{report}") };
    assert_eq!(problem.path, "peers[0].keys[0]");
    assert_eq!(problem.message, "this is our own key");
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let dir = Dir::new();
    let report = load(&dir.path("tunnel.yaml")).unwrap_err();
    assert!(report.to_string().contains("cannot read the file"), "{report}");
    let report = load(dir.0.path()).unwrap_err();
    assert!(report.to_string().contains("cannot read the file"), "{report}");
    let report = load(&dir.write("tunnel.yaml", b"\xff", 0o600)).unwrap_err();
    assert!(report.to_string().contains("not text in UTF-8"), "{report}");
    // The limit falls into the middle of a character, which is not what is wrong with it.
    let text = "#".repeat(1 << 20) + "é";
    let report = load(&dir.write("tunnel.yaml", text, 0o600)).unwrap_err();
    assert!(report.to_string().contains("larger than 1MiB"), "{report}");
}
