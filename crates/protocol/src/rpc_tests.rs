//! Tests of [`super`].

use super::*;
use crate::agent::{ExecCode, Pong};

fn code_of(line: &str) -> (Id, i32) {
    let bad = Request::parse(line.as_bytes()).expect_err("the line must be refused");
    (bad.id, bad.error.code)
}

#[test]
fn reads_requests_and_notifications() {
    let request = Request::parse(
        br#" {"jsonrpc":"2.0","id":7,"method":"exec_code","params":{"lang":"sh","code":"a\nb"}} "#,
    )
    .expect("a request");
    assert_eq!(request.id, Some(Id::from(7)));
    let params: ExecCode = request.params().expect("params");
    assert_eq!((params.lang.as_str(), params.code.as_str()), ("sh", "a\nb"));

    let with = |id: &str| {
        let line = alloc::format!(r#"{{"jsonrpc":"2.0",{id}"method":"x"}}"#);
        Request::parse(line.as_bytes()).expect("a request").id
    };
    assert_eq!(with(""), None);
    assert_eq!(with(r#""id":null,"#), Some(Id::Null));
    assert_eq!(with(r#""id":"a","#), Some(Id::Text("a".into())));
    assert_eq!(with(r#""id":-3,"#), Some(Id::Number((-3).into())));
}

#[test]
fn refuses_what_is_no_json() {
    for line in [
        "",
        "{",
        "{\"jsonrpc\":\"2.0\"",
        "[1,2",
        "{\"jsonrpc\":5,,}",
        "\u{0}",
    ] {
        assert_eq!(code_of(line), (Id::Null, PARSE_ERROR), "{line:?}");
    }
    let bad = Request::parse(b"{\"jsonrpc\":\"\xff\"}").expect_err("not UTF-8");
    assert_eq!(bad.error.code, PARSE_ERROR);
}

#[test]
fn refuses_what_is_no_request() {
    for line in [
        "1",
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        r#"["2.0",1,"ping"]"#,
        r#" ["2.0",1,"ping",{}]"#,
        r#"["2.0"]"#,
        "{}",
        r#"{"jsonrpc":"2.0"}"#,
    ] {
        assert_eq!(code_of(line), (Id::Null, INVALID_REQUEST), "{line:?}");
    }
    assert_eq!(
        code_of(r#"{"jsonrpc":"1.0","id":4,"method":"ping"}"#),
        (Id::from(4), INVALID_REQUEST)
    );
    assert_eq!(
        code_of(r#"{"jsonrpc":"2.0","id":4,"method":9}"#),
        (Id::from(4), INVALID_REQUEST)
    );
    assert_eq!(
        code_of(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#),
        (Id::Null, INVALID_REQUEST)
    );
}

#[test]
fn refuses_unknown_and_missing_params() {
    for params in [
        r#"{"lang":"sh"}"#,
        r#"{"lang":"sh","code":"","colour":1}"#,
        "7",
        "null",
        r#"{"lang":1,"code":""}"#,
    ] {
        let line = alloc::format!(r#"{{"jsonrpc":"2.0","id":1,"method":"exec_code","params":{params}}}"#);
        let request = Request::parse(line.as_bytes()).expect("a request");
        let error = request.params::<ExecCode>().expect_err(params);
        assert_eq!(error.code, INVALID_PARAMS, "{params}");
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let mut line = alloc::string::String::from(r#"{"jsonrpc":"2.0","id":1,"method":"exec_code","params":"#);
    line.extend(core::iter::repeat_n('[', 500_000));
    line.extend(core::iter::repeat_n(']', 500_000));
    line.push('}');
    let request = Request::parse(line.as_bytes()).expect("nesting is legal JSON");
    assert_eq!(
        request.params::<ExecCode>().expect_err("an array").code,
        INVALID_PARAMS
    );
}

#[test]
fn writes_exact_lines() {
    let id = Id::from(1);
    assert_eq!(
        result_line(&id, Pong { pong: true }),
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"pong\":true}}\n"
    );
    assert_eq!(
        error_line(&Id::Null, &RpcError::new(PARSE_ERROR, "no")),
        b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"no\"}}\n"
    );
}

#[test]
fn the_client_reads_what_the_agent_writes() {
    let error = RpcError::internal("no such program", Some(2));
    match Incoming::parse(&error_line(&Id::from(3), &error)).expect("a response") {
        Incoming::Response {
            id,
            outcome: Err(read),
        } => assert_eq!((id, read), (Id::from(3), error)),
        other => panic!("{other:?}"),
    }
    match Incoming::parse(&result_line(&Id::Text("a".into()), Pong { pong: true })).expect("a response") {
        Incoming::Response {
            outcome: Ok(payload), ..
        } => assert!(payload.read::<Pong>().expect("a pong").pong),
        other => panic!("{other:?}"),
    }
    for line in [
        "",
        "{}",
        "[]",
        r#"["2.0",1,null,null,{}]"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#,
    ] {
        Incoming::parse(line.as_bytes()).expect_err(line);
    }
}
