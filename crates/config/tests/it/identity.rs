//! Identity files, and `load`, which reads one.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use ferry_config::{Identity, IdentityError, Report, load};
use tempfile::TempDir;

use crate::support::{KEY_1, OUR_KEY, OUR_PRIVATE_KEY, fine, pem};

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

fn our_key() -> String {
    pem("PRIVATE KEY", OUR_PRIVATE_KEY)
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
    // RFC 8410, section 10.3: the same key as version 1, with attributes, and as version 2 with its public key.
    let versions = [
        OUR_PRIVATE_KEY,
        "ME8CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhCoB8wHQYKKoZIhvcNAQkJ\nFDEPDA1DdXJkbGUgQ2hhaXJz",
        "MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhCoB8wHQYKKoZIhvcNAQkJ\r\n\
         FDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
    ];
    let ours = Identity::load(&dir.key(our_key())).unwrap();
    assert_eq!(ours.public_key().to_string(), OUR_KEY);
    for version in versions {
        let text = format!("a comment\n{}\n", pem("PRIVATE KEY", version));
        let identity = Identity::load(&dir.key(text)).unwrap();
        assert_eq!(identity.public_key(), ours.public_key());
        assert_eq!(identity.pkcs8_der().expose(), ours.pkcs8_der().expose());
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
    let cut = &OUR_PRIVATE_KEY[..60];
    let cases = [
        (String::new(), "no PEM block"),
        (OUR_KEY.to_owned(), "no PEM block"),
        (our_key().replace("END", "FIN"), "no end"),
        (our_key() + &our_key(), "more than one PEM block"),
        (pem("PRIVATE KEY", "MC4C AQ!"), "not base64"),
        (pem("PRIVATE KEY", cut), "damaged"),
        (pem("PRIVATE KEY", ""), "damaged"),
        (pem("ENCRYPTED PRIVATE KEY", OUR_PRIVATE_KEY), "encrypted"),
        (pem("OPENSSH PRIVATE KEY", OUR_PRIVATE_KEY), "OpenSSH"),
        (pem("PUBLIC KEY", OUR_PRIVATE_KEY), "public key"),
        (pem("CERTIFICATE", OUR_PRIVATE_KEY), "certificate"),
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
    let x25519 = "MC4CAQAwBQYDK2VuBCIEINi4qfrd1nFwhGcQ/ObkRrtGoVUdFEN9Hm3F4Ok1iQ9e";
    let p256 = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgEsXOAn09ZvvrQW0S\n\
                yZWSpD7BOITz2l3rhGVjA9l1kI+hRANCAASxo3SnWSVgdXTh6fTPrx9zveXr8YqU\n\
                YfVSEAiIHMxhUPKR6XKcAnj6EBTTf3D7LxZ8dJDhznauKDSPYlZBoA3h";
    let cases = [
        pem("PRIVATE KEY", x25519),
        pem("PRIVATE KEY", p256),
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
    assert_eq!(loaded.tunnel.identity.public_key().to_string(), OUR_KEY);
    assert_eq!(loaded.tunnel.name.as_str(), "us");
    assert_eq!(loaded.warnings, []);
    assert!(!format!("{loaded:?}").contains("pkcs8"));
}

#[test]
fn the_identity_is_reported_together_with_everything_else() {
    let dir = Dir::new();
    let report = dir.load(&(fine() + "liveness: 5\n")).unwrap_err();
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
    let report = dir.load(&fine().replace(KEY_1, OUR_KEY)).unwrap_err();
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
