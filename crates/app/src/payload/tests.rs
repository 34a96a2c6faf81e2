use serde_json::{Value, json};

use super::*;

const RAW_KEY: &str = "$serde_json::private::RawValue";
const NUMBER_KEY: &str = "$serde_json::private::Number";

fn parsed(text: &str) -> String {
    Payload::parse(text).unwrap().as_str().to_owned()
}

fn refused(text: impl Into<Vec<u8>>) -> String {
    Payload::parse(text).unwrap_err().to_string()
}

/// An object with this many levels, itself included.
fn nested(levels: usize) -> String {
    format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
}

#[test]
fn numbers_and_texts_stay_as_they_were_written() {
    for text in [
        r#"{"id":18446744073709551616,"long":0.12345678901234567890123456789,"e":1E300,"z":-0,"d":1.50}"#,
        r#"{"text":"a\u00e9\/\n \"{[ ]}\" é","empty":{},"list":[[],{},null,true,false]}"#,
        r#"{"":"","\u0061":1}"#,
        "{}",
    ] {
        assert_eq!(parsed(text), text);
    }
    assert_eq!(parsed(" {\"a b\" : [ 1 ,\n\t2 ] ,\r\n \"c\\\" d\": \"e \\\\\" } "), r#"{"a b":[1,2],"c\" d":"e \\"}"#);
}

#[test]
fn what_is_no_object_is_refused_with_what_it_is() {
    for (text, says) in [
        ("", "nothing"),
        (" \n", "nothing"),
        ("[1]", "an array"),
        ("\"x\"", "a string"),
        ("-1.5", "a number"),
        ("true", "a boolean"),
        ("null", "null"),
        ("hello", "not JSON"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("{\"a\":1,}", "not JSON"),
        ("{\"a\":01}", "not JSON"),
        ("{\"a\":NaN}", "not JSON"),
        ("{\"a\":Infinity}", "not JSON"),
        ("{\"a\":-Infinity}", "not JSON"),
        ("{a:1}", "not JSON"),
        ("{'a':1}", "not JSON"),
        ("{\"a\":\"\n\"}", "not JSON"),
        ("{\"a\":\"\\ud800\"}", "not JSON"),
        ("{\"a\":[1}", "not JSON"),
        ("\u{feff}{}", "not JSON"),
    ] {
        let error = refused(text);
        assert!(error.contains(says), "{text:?}: {error}");
    }
    assert!(refused(b"{\"a\":\"\xff\"}".as_slice()).contains("not JSON"));
    assert!(refused(b"{\"\xff\":1}".as_slice()).contains("not JSON"));
}

#[test]
fn a_repeated_key_is_refused_by_name_at_any_depth_and_however_it_is_written() {
    for text in [
        r#"{"key":1,"key":2}"#,
        r#"{"key":1,"b":{},"key":1}"#,
        r#"{"a":[{"b":1,"key":{},"key":{}}]}"#,
        r#"{"\u006bey":1,"key":2}"#,
    ] {
        assert_eq!(Payload::parse(text), Err(PayloadError::RepeatedKey("key".into())), "{text}");
    }
    assert!(refused(r#"{"key":1,"key":2}"#).contains("the key \"key\" is repeated"));
    parsed(r#"{"key":{"key":{"key":[{"key":1},{"key":2}]}},"Key":1}"#);
}

#[test]
fn depth_size_and_numbers_are_bounded() {
    parsed(&nested(MAX_PAYLOAD_DEPTH));
    assert_eq!(Payload::parse(nested(MAX_PAYLOAD_DEPTH + 1)), Err(PayloadError::TooDeep));
    assert_eq!(Payload::parse(nested(500_000)), Err(PayloadError::TooDeep));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert_eq!(Payload::parse(objects), Err(PayloadError::TooDeep));

    let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    assert_eq!(parsed(&sized(MAX_PAYLOAD_BYTES)).len(), MAX_PAYLOAD_BYTES);
    assert_eq!(Payload::parse(sized(MAX_PAYLOAD_BYTES + 1)), Err(PayloadError::TooLarge(MAX_PAYLOAD_BYTES + 1)));

    let fraction = |length: usize| format!("{{\"a\":[0.{}]}}", "7".repeat(length - 2));
    assert_eq!(parsed(&fraction(MAX_NUMBER_LENGTH)), fraction(MAX_NUMBER_LENGTH));
    let digits = |count: usize| format!("{{\"a\":[{}]}}", "7".repeat(count));
    for long in [fraction(MAX_NUMBER_LENGTH + 1), digits(4097), digits(1_000_000), digits(5000).replace("]", ".5]")] {
        assert_eq!(Payload::parse(long), Err(PayloadError::LongNumber));
    }
    parsed(r#"{"a":[1.7976931348623157e308,-1e308,1e-999999999,0e999999999]}"#);
    parsed(&digits(308));
    for huge in [r#"{"a":1e309}"#.into(), r#"{"a":[-1E400]}"#.into(), digits(310), digits(4000)] {
        assert_eq!(Payload::parse(huge), Err(PayloadError::HugeNumber));
    }
}

#[test]
fn keys_that_serde_json_takes_for_its_own_are_ordinary_keys() {
    for key in [RAW_KEY, NUMBER_KEY] {
        for inner in ["1", "[1,{}]", "not JSON at all"] {
            let object = json!({"a": {key: inner}, key: inner});
            let payload = Payload::try_from(object.as_object().unwrap()).unwrap();
            assert_eq!(payload.as_str(), object.to_string());
            assert_eq!(payload.to_object().unwrap(), *object.as_object().unwrap());
        }
    }
    // Each level within is text to the one around it: 26 of them end a process that reads them as JSON.
    let mut text = nested(MAX_PAYLOAD_DEPTH);
    while text.len() < MAX_PAYLOAD_BYTES / 4 {
        text = json!({RAW_KEY: text}).to_string();
    }
    assert_eq!(Payload::parse(text.clone()).unwrap().to_object().unwrap().len(), 1);
    assert_eq!(parsed(&text), text);
}

#[test]
fn a_tree_has_what_the_text_has() {
    let text = r#"{"a":[1,-2,18446744073709551615,0.1,1e2,true,null,"\u00e9\n"],"b":{"c":{}},"":[]}"#;
    let object = Payload::parse(text).unwrap().to_object().unwrap();
    assert_eq!(Value::Object(object.clone()), serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(Payload::try_from(&object).unwrap().to_object().unwrap(), object);
}
