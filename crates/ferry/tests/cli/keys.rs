//! `ferry keygen` and `ferry pubkey`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{code, ferry, keygen, stderr, stdout};

#[test]
fn keygen_writes_a_private_file_and_prints_the_public_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    let output = ferry(&["keygen".as_ref(), "--out".as_ref(), path.as_os_str()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = stdout(&output);
    assert!(key.starts_with("ferry:pub:") && key.ends_with('\n') && key.lines().count() == 1, "{key:?}");
    assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_graphic()), "{key:?}");
}

#[test]
fn keygen_never_overwrites_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    fs::write(&path, "precious").unwrap();
    let output = ferry(&["keygen".as_ref(), "--out".as_ref(), path.as_os_str()]);
    assert_eq!(code(&output), 1);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("exists already"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn pubkey_prints_what_keygen_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    let key = keygen(&path);
    let output = ferry(&["pubkey".as_ref(), path.as_os_str()]);
    assert_eq!((code(&output), stdout(&output)), (0, format!("{key}\n")));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    keygen(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let output = ferry(&["pubkey".as_ref(), path.as_os_str()]);
    assert_eq!((code(&output), stdout(&output)), (1, String::new()));
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
}
