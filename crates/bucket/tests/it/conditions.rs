//! Stores that do not mean the conditions that they are sent.

use firebrick_store::{ObjectError, Objects as _, Swap};
use firebrick_testkit::fault::{End, Server};

use crate::memory::{self, Conditions};
use crate::support::open;

fn variables(port: u16) -> Vec<(String, String)> {
    let endpoint = format!("http://127.0.0.1:{port}");
    [
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_ENDPOINT_URL", &endpoint),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[test]
fn stores_that_ignore_conditions_are_found_out() {
    for (conditions, expected) in [
        (Conditions::Kept, true),
        (Conditions::Ignored, false),
        (Conditions::Unknown, false),
    ] {
        let server = memory::start(conditions, |_| Ok(()));
        let bucket = open("s3://fbtest/below", variables(server.port()));
        assert_eq!(bucket.can_swap().unwrap(), expected, "{conditions:?}");
        // Nothing is left of the try, which no other knows the name of.
        assert_eq!(
            open("s3://fbtest", variables(server.port())).list("").unwrap(),
            [],
            "{conditions:?}"
        );
        let puts: Vec<String> = server
            .requests()
            .iter()
            .filter(|request| request.method == "PUT")
            .map(|request| request.target.clone())
            .collect();
        assert!(
            puts.iter()
                .all(|target| target == &puts[0] && target.starts_with("/fbtest/below/probe/")),
            "{puts:?}"
        );
        bucket.can_swap().unwrap();
        assert!(
            server
                .requests()
                .iter()
                .any(|request| request.method == "PUT" && request.target != puts[0])
        );
    }
    let server = memory::start(Conditions::Unknown, |_| Ok(()));
    let error = open("s3://fbtest", variables(server.port()))
        .swap("k", Vec::new(), None)
        .unwrap_err();
    assert!(matches!(error, ObjectError::Unsupported { .. }), "{error:?}");
}

/// The answer to the first write is lost after the write was done: the second finds it, and it is ours.
#[test]
fn a_swap_whose_answer_was_lost_is_not_called_anothers() {
    let store = memory::start(Conditions::Kept, |_| Ok(()));
    let host = format!("127.0.0.1:{}", store.port());
    let lose_first = |other: Option<&'static str>| {
        let (first, direct) = (
            std::sync::atomic::AtomicBool::new(true),
            open("s3://fbtest", variables(store.port())),
        );
        Server::before(&host, move |request, ask| {
            let is_swap = request.method == "PUT" && first.swap(false, std::sync::atomic::Ordering::Relaxed);
            let answer = ask();
            if let (true, Some(other)) = (is_swap, other) {
                direct.put("k", other.as_bytes().to_vec()).unwrap();
            }
            if is_swap { answer.ending(End::Lost) } else { answer }
        })
        .unwrap()
    };
    let server = lose_first(None);
    let bucket = open("s3://fbtest", variables(server.port()));
    assert_eq!(bucket.swap("k", b"mine".to_vec(), None).unwrap(), Swap::Done);
    assert_eq!(bucket.get("k", 9).unwrap().unwrap().0, b"mine");
    bucket.delete("k").unwrap();

    // Where another has written since, nobody can tell.
    let server = lose_first(Some("theirs"));
    let bucket = open("s3://fbtest", variables(server.port()));
    assert_eq!(bucket.swap("k", b"mine".to_vec(), None).unwrap(), Swap::Unknown);
    assert_eq!(bucket.get("k", 9).unwrap().unwrap().0, b"theirs");
}
