//! The client against agents made of a few lines, well- and ill-behaved.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::interrupts::Interrupts;

const LIMIT: Duration = Duration::from_secs(10);

/// An agent that sends `replies`, one per line that it gets, and then hangs up.
fn agent(replies: Vec<Vec<u8>>) -> Client {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
        for reply in replies {
            let Some(Ok(_)) = lines.next() else { return };
            if (&guest).write_all(&reply).is_err() {
                return;
            }
        }
    });
    Client::new(host.into()).unwrap()
}

fn replies(text: &[&str]) -> Vec<Vec<u8>> {
    text.iter().map(|line| format!("{line}\n").into_bytes()).collect()
}

fn io<'a>(stdout: &'a mut Vec<u8>, stderr: &'a mut Vec<u8>) -> StreamIo<'a> {
    StreamIo {
        stdin: None,
        stdout,
        stderr,
        interrupts: None,
        patience: LIMIT,
        limit: Some(LIMIT),
        terminal: None,
    }
}

fn sh(cmd: &str) -> Command {
    Command::Exec(Exec {
        cmd: Some(cmd.into()),
        ..Exec::default()
    })
}

#[test]
fn answers_are_matched_and_read() {
    let mut client = agent(replies(&[
        r#"{"jsonrpc":"2.0","id":1,"result":{"pong":true}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{"exit_code":3,"stdout":"a","stderr":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32603,"message":"no such file","data":{"errno":2}}}"#,
    ]));
    client.ping(LIMIT).unwrap();
    let result = client.exec(Exec::default(), LIMIT).unwrap();
    assert_eq!((result.exit_code, result.stdout.as_deref()), (3, Some("a")));
    let error = client.exec(Exec::default(), LIMIT).unwrap_err();
    assert_eq!(error.guest_errno(), Some(2));
    assert!(matches!(client.ping(LIMIT).unwrap_err(), CallError::Closed));
}

#[test]
fn nonsense_is_an_error_and_not_a_wait() {
    for nonsense in [
        "hello",
        "{}",
        "[]",
        r#"{"jsonrpc":"2.0","id":9,"result":{"pong":true}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"pong":false}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"pong":"yes"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"1.0","id":1,"result":{"pong":true}}"#,
    ] {
        let error = agent(replies(&[nonsense])).ping(LIMIT).unwrap_err();
        assert!(
            matches!(error, CallError::Protocol(_) | CallError::Unexpected { .. }),
            "{nonsense}: {error:?}"
        );
    }
}

#[test]
fn an_endless_line_is_cut_off() {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || while (&guest).write_all(&[b'x'; 65536]).is_ok() {});
    let error = Client::new(host.into()).unwrap().ping(LIMIT).unwrap_err();
    assert!(matches!(error, CallError::Unexpected { .. }), "{error:?}");
}

#[test]
fn silence_times_out() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let error = Client::new(host.into())
        .unwrap()
        .ping(Duration::from_millis(50))
        .unwrap_err();
    assert!(
        matches!(error, CallError::TimedOut { method: "ping", .. }),
        "{error:?}"
    );
}

#[test]
fn output_flows_in_order_and_foreign_output_does_not() {
    let reply = [
        r#"{"jsonrpc":"2.0","method":"output","params":{"id":1,"stream":"stdout","data":"AP+A"}}"#,
        r#"{"jsonrpc":"2.0","method":"output","params":{"id":7,"stream":"stdout","data":"AAAA"}}"#,
        r#"{"jsonrpc":"2.0","method":"output","params":{"id":1,"stream":"stderr","data":"ZQ=="}}"#,
        r#"{"jsonrpc":"2.0","method":"later","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"exit_code":137,"signal":9}}"#,
    ]
    .join("\n");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = agent(replies(&[&reply]))
        .stream(sh("x"), io(&mut out, &mut err))
        .unwrap();
    let Ended::Result(result) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!((result.exit_code, result.signal), (137, Some(9)));
    assert_eq!((&*out, &*err), (&[0, 0xff, 0x80][..], &b"e"[..]));
}

#[test]
fn a_host_that_cannot_write_says_so() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let reply = r#"{"jsonrpc":"2.0","method":"output","params":{"id":1,"stream":"stdout","data":"AAAA"}}"#;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let io = StreamIo {
        stdout: &mut Full,
        ..io(&mut out, &mut err)
    };
    let error = agent(replies(&[reply])).stream(sh("x"), io).unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Output {
                stream: OutputStream::Stdout,
                ..
            }
        ),
        "{error:?}"
    );
}

/// Lines that the client sent, and its end of the connection to answer on.
fn listening() -> (Client, std::io::Lines<BufReader<UnixStream>>, UnixStream) {
    let (host, guest) = UnixStream::pair().unwrap();
    let lines = BufReader::new(guest.try_clone().unwrap()).lines();
    (Client::new(host.into()).unwrap(), lines, guest)
}

#[test]
fn input_is_fed_to_its_end() {
    let (mut client, mut lines, mut guest) = listening();
    let (read, write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || (&write).write_all(&vec![7; 100_000]).unwrap());
        scope.spawn(move || {
            let request = lines.next().unwrap().unwrap();
            assert!(request.contains(r#""stdin":true"#), "{request}");
            let mut total = 0;
            loop {
                let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
                assert_eq!(line["method"], "stdin");
                let stdin: agent::Stdin = serde_json::from_value(line["params"].clone()).unwrap();
                total += stdin.data.0.len();
                if stdin.eof {
                    break;
                }
            }
            assert_eq!(total, 100_000);
            guest
                .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"exit_code\":0}}\n")
                .unwrap();
            let mut rest = String::new();
            let _ = guest.read_to_string(&mut rest);
        });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let io = StreamIo {
            stdin: Some(read.as_fd()),
            ..io(&mut out, &mut err)
        };
        assert!(matches!(client.stream(sh("cat"), io).unwrap(), Ended::Result(_)));
        drop(client);
    });
}

#[test]
fn a_job_that_ignores_signals_is_given_up() {
    for (patience, second) in [
        (Duration::from_millis(50), None),
        (Duration::from_secs(60), Some(2)),
    ] {
        let (mut client, mut lines, _guest) = listening();
        let (sender, interrupts) = Interrupts::pair().unwrap();
        sender.send(15);
        second.inspect(|&signal| sender.send(signal));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let io = StreamIo {
            interrupts: Some(&interrupts),
            patience,
            ..io(&mut out, &mut err)
        };
        let ended = client.stream(sh("x"), io).unwrap();
        assert_eq!(
            ended,
            Ended::Interrupted {
                signal: second.unwrap_or(15)
            }
        );
        drop(client);
        if second.is_none() {
            lines.next();
            let line = lines.next().unwrap().unwrap();
            assert!(
                line.contains(r#""method":"signal""#) && line.contains(r#""signal":15"#),
                "{line}"
            );
        }
    }
}

#[test]
fn a_job_without_end_is_given_up() {
    let (mut client, _lines, _guest) = listening();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let io = StreamIo {
        limit: Some(Duration::from_millis(50)),
        terminal: None,
        ..io(&mut out, &mut err)
    };
    assert_eq!(client.stream(sh("x"), io).unwrap(), Ended::TimedOut);
}

/// Why an upload ends whose guest says this once some bytes have come.
fn put_that_is_answered_early(answer: &'static str) -> CallError {
    let (client, mut lines, guest) = listening();
    std::thread::scope(move |scope| {
        let mut client = client;
        client.protocol = Some(0);
        scope.spawn(move || {
            for _ in 0..3 {
                lines.next().unwrap().unwrap();
            }
            writeln!(&guest, "{answer}").unwrap();
            while let Some(Ok(_)) = lines.next() {}
        });
        let mut upload = client.put(firebrick_protocol::files::Put::default(), Duration::from_secs(60));
        let copied = std::io::copy(&mut std::io::repeat(7).take(64 << 20), &mut upload);
        assert_eq!(copied.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        upload.finish().unwrap_err()
    })
}

#[test]
fn an_answer_before_the_end_of_an_upload_ends_it_and_is_its_reason() {
    let full =
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no space left","data":{"errno":28}}}"#;
    let reason = put_that_is_answered_early(full);
    assert_eq!(reason.guest_errno(), Some(28), "{reason:?}");
    let unread = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"cannot be read"}}"#;
    let reason = put_that_is_answered_early(unread);
    assert!(matches!(reason, CallError::Refused { .. }), "{reason:?}");
    let done = r#"{"jsonrpc":"2.0","id":1,"result":{"bytes":1,"entries":1}}"#;
    let reason = put_that_is_answered_early(done);
    assert!(
        matches!(&reason, CallError::Unexpected { what } if what.contains("before all bytes")),
        "{reason:?}"
    );
}

#[test]
fn a_limit_beyond_all_clocks_is_none() {
    let mut client = agent(replies(&[
        r#"{"jsonrpc":"2.0","id":1,"result":{"pong":true}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{"exit_code":0}}"#,
        r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32603,"message":"no"}}"#,
    ]));
    client.protocol = Some(0);
    client.ping(Duration::MAX).unwrap();
    let (sender, interrupts) = Interrupts::pair().unwrap();
    sender.send(2);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let io = StreamIo {
        limit: Some(Duration::MAX),
        patience: Duration::MAX,
        interrupts: Some(&interrupts),
        ..io(&mut out, &mut err)
    };
    assert!(matches!(client.stream(sh("x"), io), Ok(Ended::Result(_))));
    let upload = client.put(firebrick_protocol::files::Put::default(), Duration::MAX);
    assert!(matches!(upload.finish(), Err(CallError::Refused { .. })));
}
