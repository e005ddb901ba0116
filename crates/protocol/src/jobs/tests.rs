//! The job protocol as hosts of today speak it, and what no host should send.

use super::*;
use alloc::vec;
use proptest::prelude::*;

#[test]
fn jobs_are_read_as_hosts_send_them() {
    let job =
        Job::parse(br#"{"trace_id":"t1","lang":"python","code":"print(1)","timeout":10}"#).expect("a job");
    assert_eq!(
        (&*job.trace_id, &*job.lang, &*job.code, job.timeout),
        ("t1", "python", "print(1)", 10)
    );
    assert!(matches!(job.code, Cow::Borrowed(_)));
    let job = Job::parse(
        br#"{"lang":null,"code":"a\nb","files":null,"stdin":null,"timeout":null,"meta":{"k":"v"},"new":[1]}"#,
    )
    .expect("a job");
    assert_eq!(
        job,
        Job {
            code: "a\nb".into(),
            ..Job::default()
        }
    );
    let stdin =
        |text: &str| Job::parse(alloc::format!("{{\"stdin\":{text}}}").as_bytes()).map(|job| job.stdin);
    assert_eq!(stdin("\"x\"").expect("text"), Input::One("x".into()));
    assert_eq!(stdin("5").expect("a number"), Input::One("5".into()));
    assert_eq!(stdin("[]").expect("none"), Input::None);
    assert_eq!(
        stdin("[\"a\", 1, true, null]").expect("a batch"),
        Input::Batch(vec!["a".into(), "1".into(), "true".into(), "".into()])
    );
    stdin("{}").expect_err("an object");
    stdin("[[]]").expect_err("a list in a list");
    for wrong in [
        "",
        "{",
        "[]",
        "5",
        r#"{"timeout":"x"}"#,
        r#"{"timeout":1.5}"#,
        r#"{"files":[{}]}"#,
    ] {
        Job::parse(wrong.as_bytes()).expect_err(wrong);
    }
}

#[test]
fn results_leave_out_what_the_contract_leaves_out() {
    let json = |result: &JobResult| serde_json::to_string(result).expect("json");
    assert_eq!(
        json(&JobResult {
            stdout: "x".into(),
            execution_time_ms: 41,
            ..JobResult::default()
        }),
        r#"{"status":"success","stdout":"x","stderr":null,"exception":null,"executionTime":41}"#
    );
    assert_eq!(
        json(&JobResult::refused("t", 127, "E006: unsupported language x")),
        r#"{"trace_id":"t","status":"failed","stdout":"","stderr":null,"exception":null,"executionTime":0,"exit_code":127,"error":"E006: unsupported language x"}"#
    );
}

#[test]
fn names_stay_inside() {
    let good = |name: &str| {
        SourceFile {
            name: name.into(),
            content: "".into(),
        }
        .has_good_name()
    };
    for name in [
        "main.py",
        "a/b/c.py",
        "..x",
        ".hidden",
        "a b",
        &["d"; 32].join("/"),
    ] {
        assert!(good(name), "{name}");
    }
    for name in [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "./a",
        ".",
        "a\0b",
        &"x".repeat(256),
        &["d"; 33].join("/"),
        &[&*"x".repeat(200); 6].join("/"),
    ] {
        assert!(!good(name), "{name}");
    }
}

#[test]
fn languages_are_told_apart() {
    let mut names: Vec<&str> = LANGUAGES
        .iter()
        .flat_map(|language| language.aliases.iter().copied().chain([language.name]))
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for name in [
        "python", "nodejs", "go", "rust", "bash", "java", "ruby", "php", "dotnet",
    ] {
        assert_eq!(Language::named(name).map(|language| language.name), Some(name));
    }
    assert!(Language::named("").is_none());
}

#[test]
fn frames_have_bounds() {
    let mut reader = FrameReader::new(10);
    assert_eq!(reader.state(), FrameState::Empty);
    reader.push(&[0, 0, 0, 11]);
    assert_eq!(reader.state(), FrameState::TooLong { len: 11 });
    reader.push(&[1; 100]);
    assert_eq!(reader.bytes.len(), 4, "nothing more is held");
    let mut reader = FrameReader::new(10);
    reader.push(&[0, 0, 0, 0]);
    assert_eq!(reader.state(), FrameState::Whole(b""));
}

proptest! {
    #[test]
    fn frames_come_in_any_pieces(text in ".{0,60}", piece in 1usize..20, behind in 0usize..20) {
        let mut wire = frame(text.as_str());
        let json = wire.get(4..).expect("json").to_vec();
        wire.extend(core::iter::repeat_n(7, behind));
        let mut reader = FrameReader::new(1000);
        for piece in wire.chunks(piece) {
            prop_assert!(reader.bytes.len() <= 1004);
            reader.push(piece);
        }
        prop_assert_eq!(reader.state(), FrameState::Whole(&json));
    }
}
