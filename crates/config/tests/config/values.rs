//! The values that have a text form of their own.

use ferry_config::{HostPort, Identity, MAX_NAME_LEN, Name, PublicKey, Secret, ServiceName};

use crate::support::{KEY_1, KEY_2};

#[test]
fn names_are_lower_case_paths() {
    let longest = "a".repeat(MAX_NAME_LEN);
    for text in ["a", "0", "cluster-a/initiator", "b.example.com", "a//b-", longest.as_str()] {
        assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        assert_eq!(text.parse::<ServiceName>().unwrap().as_str(), text);
    }
    let too_long = "a".repeat(MAX_NAME_LEN + 1);
    for text in ["", "-a", "/a", ".a", "A", "a_b", "a b", "a\n", "ä", too_long.as_str()] {
        let error = text.parse::<Name>().expect_err(text);
        assert_eq!(text.parse::<ServiceName>(), Err(error.clone()));
        assert!(error.to_string().len() < 400 && !error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn addresses_keep_ipv6_in_brackets() {
    let address: HostPort = "[::1]:80".parse().unwrap();
    assert_eq!((address.host.as_str(), address.port), ("::1", 80));
    for text in ["[::1]:80", "10.0.0.1:1", "b.example.com:65535", "b.example.com.:1", "my_svc:1", "localhost:8000"] {
        assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
    }
}

#[test]
fn a_public_key_has_one_text() {
    let key: PublicKey = KEY_1.parse().unwrap();
    assert_eq!(key.to_string(), KEY_1);
    assert_eq!(format!("{key:?}"), format!("PublicKey({KEY_1})"));
    let encoded = KEY_1.strip_prefix("ferry:pub:").unwrap();
    let standard = encoded.replace('-', "+");
    // The last character carries two bits that must be zero.
    let stray = format!("{}R", &encoded[..42]);
    for encoded in ["", &encoded[1..], &format!("{encoded}="), &format!("{encoded}A"), &standard, &stray] {
        let error = format!("ferry:pub:{encoded}").parse::<PublicKey>().expect_err(encoded);
        assert!(error.hint.contains("ferry pubkey"), "{error}");
    }
    for text in [encoded, "", "ferry:pub", "FERRY:PUB:x", "ferry:key:x"] {
        text.parse::<PublicKey>().expect_err(text);
    }
}

#[test]
fn a_public_key_travels_through_serde_as_its_text() {
    let keys: Vec<PublicKey> = [KEY_1, KEY_2].iter().map(|key| key.parse().unwrap()).collect();
    let text = serde_saphyr::to_string(&keys).unwrap();
    assert!(text.contains(KEY_1), "{text}");
    assert_eq!(serde_saphyr::from_str::<Vec<PublicKey>>(&text).unwrap(), keys);
    assert!(serde_saphyr::from_str::<PublicKey>("ferry:pub:x").is_err());
}

#[test]
fn a_public_key_in_der_is_that_of_rfc_8410() {
    let key: PublicKey = KEY_1.parse().unwrap();
    let der = key.spki_der();
    let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "302a300506032b65700321008c466c9a4309e1fb112ec4bcc28ceabc0110c23399b63953b8f8fb8f8bcdf9b4";
    assert_eq!(hex, expected);
    assert_eq!(PublicKey::from_spki_der(&der), Ok(key));
    PublicKey::from_spki_der(&der[..43]).unwrap_err();
    PublicKey::from_spki_der(&[&der[..], &[0]].concat()).unwrap_err();
    let mut x25519 = der;
    x25519[8] = 0x6e;
    PublicKey::from_spki_der(&x25519).unwrap_err();
}

#[test]
fn keys_of_small_order_do_not_exist() {
    let mut points = vec![[0; 32], [0xff; 32]];
    points[1][31] = 0x7f;
    for (i, low) in [0, 1, 0xec, 0xed, 0xee].into_iter().enumerate() {
        let mut point = points[usize::from(i > 1)];
        point[0] = low;
        points.push(point);
    }
    let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let bytes = (0..32).map(|i| u8::from_str_radix(&order_8[2 * i..2 * i + 2], 16).unwrap());
    points.push(bytes.collect::<Vec<_>>().try_into().unwrap());
    for point in points.iter().skip(2) {
        for sign in [0, 0x80] {
            let mut point = *point;
            point[31] |= sign;
            PublicKey::from_bytes(point).unwrap_err();
        }
    }
    PublicKey::from_bytes([0xff; 32]).unwrap();
}

#[test]
fn secrets_are_masked() {
    let secret = Secret::new(String::from("hunter2"));
    assert_eq!(secret.expose(), "hunter2");
    assert_eq!(format!("{secret:?} {secret}"), "Secret(***) ***");
    let identity = Identity::generate().unwrap();
    assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.public_key()));
}
