//! Handshakes as bytes, written out from the protocol's document.

use super::*;

/// What a modern client begins with: fixed newstyle, and no zeros.
const MODERN: &[u8] = b"\0\0\0\x03";
const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";
const OFFER: Offer<'_> = Offer {
    name: "disk",
    size_bytes: 0x0102_0304_0506,
};

fn option(kind: u8, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap().to_be_bytes();
    [b"IHAVEOPT\0\0\0", &[kind][..], &len, data].concat()
}

/// A reply to an option, or the beginning of one.
fn reply(kind: u8, reply: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap().to_be_bytes();
    let start = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0";
    [start, &[kind][..], &reply.to_be_bytes(), &len, data].concat()
}

/// What the server says after its greeting, and what comes of it.
fn talk(parts: &[&[u8]]) -> (Vec<u8>, Result<Terms, Ending>) {
    let mut said = Vec::new();
    let outcome = negotiate(&mut &parts.concat()[..], &mut said, OFFER);
    assert_eq!(&said[..18], GREETING);
    (said.split_off(18), outcome)
}

/// The types of the replies to a modern client's options.
fn types(options: &[Vec<u8>]) -> Vec<u32> {
    let options = options.concat();
    let (said, _) = talk(&[MODERN, &options]);
    let mut rest = &said[..];
    let mut types = Vec::new();
    while rest.len() >= 20 {
        types.push(u32::from_be_bytes(rest[12..16].try_into().unwrap()));
        let len = u32::from_be_bytes(rest[16..20].try_into().unwrap());
        rest = &rest[20 + usize::try_from(len).unwrap()..];
    }
    assert!(rest.is_empty());
    types
}

fn violation(parts: &[&[u8]]) -> Violation {
    match talk(parts).1 {
        Err(Ending::Broke(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
fn asking(name: &[u8], about: &[u16]) -> Vec<u8> {
    let about: Vec<u8> = about.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    let count = u16::try_from(about.len() / 2).unwrap().to_be_bytes();
    let len = u32::try_from(name.len()).unwrap().to_be_bytes();
    [&len, name, &count, &about].concat()
}

/// The data of the options about metadata contexts.
fn querying(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let string = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    let count = u32::try_from(queries.len()).unwrap().to_be_bytes();
    let queries: Vec<u8> = queries.iter().flat_map(|query| string(query)).collect();
    [string(name), count.to_vec(), queries].concat()
}

const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;

#[test]
fn an_old_client_gets_size_flags_and_zeros() {
    let (said, terms) = talk(&[b"\0\0\0\x01", &option(1, b"")]);
    let expected = [&b"\0\0\x01\x02\x03\x04\x05\x06\x05\x07"[..], &[0; 124]].concat();
    assert_eq!(said, expected);
    assert_eq!(terms.unwrap(), Terms::default());
    let (said, _) = talk(&[MODERN, &option(1, b"disk")]);
    assert_eq!(said, b"\0\0\x01\x02\x03\x04\x05\x06\x05\x07");
}

#[test]
fn a_name_that_is_not_served_cannot_be_refused_politely() {
    let unknown = violation(&[MODERN, &option(1, b"other")]);
    assert_eq!(
        unknown,
        Violation::UnknownExport {
            name: "other".to_owned()
        }
    );
}

#[test]
fn go_tells_what_was_asked_about() {
    let (said, terms) = talk(&[
        MODERN,
        &option(8, b""),
        &option(10, &querying(b"disk", &[b"base:allocation"])),
        &option(7, &asking(b"disk", &[3, 1, 77])),
    ]);
    let expected = [
        reply(8, 1, b""),
        reply(10, 4, b"\0\0\0\x01base:allocation"),
        reply(10, 1, b""),
        reply(7, 3, b"\0\0\0\0\x01\x02\x03\x04\x05\x06\x05\x87"),
        reply(7, 3, b"\0\x01disk"),
        reply(7, 3, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"),
        reply(7, 1, b""),
    ];
    assert_eq!(said, expected.concat());
    let rich = Terms {
        structured: true,
        allocation: true,
    };
    assert_eq!(terms.unwrap(), rich);
}

#[test]
fn info_leaves_the_choice_open() {
    let options = [
        option(6, &asking(b"", &[])),
        option(6, &asking(b"nothing", &[])),
        option(7, &asking(b"nothing", &[])),
        option(6, b"\0\0\0"),
        option(6, b"\0\0\0\0\0\x01"),
        option(6, b"\0\0\0\0\0\0\0"),
        option(6, &asking(&[b'x'; 4097], &[])),
        option(7, &asking(b"", &[])),
    ];
    assert_eq!(
        types(&options),
        [3, 1, UNKNOWN, UNKNOWN, INVALID, INVALID, INVALID, INVALID, 3, 1]
    );
}

#[test]
fn contexts_belong_to_the_name_they_were_chosen_for() {
    let chosen = |name: &[u8], queries: &[&[u8]], used: &[u8]| {
        let set = option(10, &querying(name, queries));
        let (_, terms) = talk(&[MODERN, &option(8, b""), &set, &option(7, &asking(used, &[]))]);
        terms.unwrap().allocation
    };
    assert!(chosen(b"", &[b"base:allocation"], b""));
    assert!(chosen(b"disk", &[b"qemu:dirty", b"base:allocation"], b"disk"));
    assert!(!chosen(b"disk", &[b"base:allocation"], b""));
    assert!(!chosen(b"", &[b"base:"], b""));
    assert!(!chosen(b"", &[], b""));
    // The last choice counts, also one that failed.
    let twice = [
        option(8, b""),
        option(10, &querying(b"", &[b"base:allocation"])),
        option(10, &querying(b"nothing", &[b"base:allocation"])),
        option(7, &asking(b"", &[])),
    ];
    assert_eq!(types(&twice), [1, 4, 1, UNKNOWN, 3, 1]);
    assert!(!talk(&[MODERN, &twice.concat()]).1.unwrap().allocation);
}

#[test]
fn contexts_are_listed() {
    let options = [
        option(9, &querying(b"", &[])),
        option(8, b""),
        option(9, &querying(b"", &[])),
        option(9, &querying(b"disk", &[b"base:"])),
        option(9, &querying(b"", &[b"base:allocation"])),
        option(9, &querying(b"", &[b"base:other", b"x"])),
        option(9, b"\0\0\0\0\xff\xff\xff\xff"),
        option(9, b"\xff\xff\xff\xff"),
        option(9, &[querying(b"", &[]), vec![0]].concat()),
    ];
    assert_eq!(
        types(&options),
        [INVALID, 1, 4, 1, 4, 1, 4, 1, 1, INVALID, INVALID, INVALID]
    );
}

#[test]
fn the_rest_is_refused_without_an_end() {
    let options = [
        // TLS, PEEK_EXPORT, EXTENDED_HEADERS, and numbers of nobody.
        option(5, b""),
        option(4, b"disk"),
        option(11, b""),
        option(12, b""),
        option(0, b"?"),
        option(255, &[7; 60_000]),
        // With data, which they do not have.
        option(3, b"x"),
        option(8, b"x"),
        option(3, b""),
        option(2, b""),
    ];
    assert_eq!(
        types(&options),
        [
            UNSUP, UNSUP, UNSUP, UNSUP, UNSUP, UNSUP, INVALID, INVALID, 2, 1, 1
        ]
    );
    let (said, ending) = talk(&[MODERN, &option(3, b""), &option(2, b"")]);
    let expected = [reply(3, 2, b"\0\0\0\x04disk"), reply(3, 1, b""), reply(2, 1, b"")];
    assert_eq!(said, expected.concat());
    assert!(matches!(ending, Err(Ending::Disconnected)));
}

#[test]
fn who_breaks_the_protocol_is_hung_up_on() {
    assert_eq!(
        violation(&[b"\0\0\0\x07"]),
        Violation::HandshakeFlags { flags: 7 }
    );
    let magic = u64::from_be_bytes(*b"GET / HT");
    assert_eq!(
        violation(&[MODERN, b"GET / HTTP/1.1\r\n"]),
        Violation::OptionMagic { magic }
    );
    for len in [OPTION_LEN_MAX + 1, u32::MAX] {
        let claimed = [b"IHAVEOPT\0\0\0\x07", &len.to_be_bytes()[..]].concat();
        let expected = Violation::OptionTooLong {
            option: 7,
            len,
            limit: 65_536,
        };
        assert_eq!(violation(&[MODERN, &claimed]), expected);
    }
    let endless = option(3, b"").repeat(1001);
    assert_eq!(
        violation(&[MODERN, &endless]),
        Violation::TooManyOptions { limit: 1000 }
    );
}

#[test]
fn whoever_goes_in_the_middle_has_hung_up() {
    let whole = [MODERN, &option(7, &asking(b"", &[3]))].concat();
    for len in 0..whole.len() {
        let (_, ending) = talk(&[&whole[..len]]);
        assert!(matches!(ending, Err(Ending::HungUp)), "{len}: {ending:?}");
    }
}
