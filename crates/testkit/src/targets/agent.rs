//! What the agent reads from hosts, and what hosts read from it.

use firebrick_protocol::agent::{
    Exec, ExecCode, ExecResult, Output, Pong, Resize, Shutdown, SignalJob, Status, Stdin, method,
};
use firebrick_protocol::files::{
    ClockSync, ClockSynced, FileContent, FileStatus, Get, Listing, MakeDir, PathParams, Put, Remove, Reseed,
    StatParams, Transferred, WriteFile,
};
use firebrick_protocol::jobs::{FrameReader, FrameState, Input, Job, JobResult, Language};
use firebrick_protocol::line::LineSplitter;
use firebrick_protocol::rpc::{Incoming, Request, error_line};
use firebrick_protocol::tar::{self, Kind, Step};

/// The longest line, job and reply here: bounds are looked at, not reached.
const LIMIT: usize = 4000;

/// What a stream of lines holds: lines, or `None` for one that is too long, and the bytes that lines announce behind them.
///
/// # Panics
/// If a bound does not hold.
fn parts(bytes: &[u8], piece_bytes: usize, announced: fn(&[u8]) -> u32) -> Vec<(bool, Option<Vec<u8>>)> {
    let mut parts: Vec<(bool, Option<Vec<u8>>)> = Vec::new();
    let mut lines = LineSplitter::new(LIMIT);
    let mut raw_left = 0;
    for piece in bytes.chunks(piece_bytes) {
        lines.push(piece);
        loop {
            if raw_left > 0 {
                let taken = lines.take_bytes(raw_left);
                if taken.is_empty() {
                    break;
                }
                raw_left -= taken.len();
                match parts.last_mut() {
                    Some((true, Some(raw))) => raw.extend_from_slice(taken),
                    _ => parts.push((true, Some(taken.to_vec()))),
                }
                continue;
            }
            let Some(line) = lines.next_line() else { break };
            raw_left = line.map_or(0, announced) as usize;
            parts.push((false, line.ok().map(<[u8]>::to_vec)));
        }
        assert!(lines.pending_bytes() <= LIMIT + piece_bytes);
    }
    parts
}

/// The whole lines of a stream, however it comes in pieces.
///
/// # Panics
/// If a bound does not hold, or pieces make a difference.
fn lines_of(bytes: &[u8], announced: fn(&[u8]) -> u32) -> Vec<Vec<u8>> {
    let parts_of = |piece_bytes| parts(bytes, piece_bytes, announced);
    let all = parts_of(97);
    assert_eq!(all, parts_of(13), "the same in smaller pieces");
    let lines = all.into_iter().filter(|(is_raw, _)| !is_raw);
    lines.filter_map(|(_, line)| line).collect()
}

/// How many bytes a client's line announces.
fn announced_by_client(line: &[u8]) -> u32 {
    let request = Request::parse(line).ok();
    let request = request.filter(|request| request.id.is_none() && request.method == method::STDIN);
    request
        .and_then(|request| request.params::<Stdin>().ok()?.raw)
        .unwrap_or(0)
}

/// How many bytes an agent's line announces.
fn announced_by_agent(line: &[u8]) -> u32 {
    match Incoming::parse(line) {
        Ok(Incoming::Notification { method: name, params }) if name == method::OUTPUT => params
            .read::<Output>()
            .ok()
            .and_then(|output| output.raw)
            .unwrap_or(0),
        _ => 0,
    }
}

/// Reads `bytes` as lines of requests, each with the parameters of every method. Whether there is one.
///
/// # Panics
/// If a bound does not hold, or an error cannot be told.
pub fn requests(bytes: &[u8]) -> bool {
    let mut any = false;
    for line in lines_of(bytes, announced_by_client) {
        let request = match Request::parse(&line) {
            Ok(request) => request,
            Err(bad) => {
                let told = error_line(&bad.id, &bad.error);
                assert!(matches!(
                    Incoming::parse(told.trim_ascii_end()),
                    Ok(Incoming::Response { outcome: Err(_), .. })
                ));
                continue;
            }
        };
        assert!(
            !line.trim_ascii_start().starts_with(b"["),
            "a batch is no request"
        );
        any = true;
        if let Ok(exec) = request.params::<Exec>() {
            let json = serde_json::to_string(&exec).expect("what was read can be written");
            let again: Exec = serde_json::from_str(&json).expect("and read again");
            assert_eq!(exec, again);
        }
        drop(request.params::<ExecCode>());
        drop(request.params::<Stdin>());
        drop(request.params::<SignalJob>());
        drop(request.params::<Resize>());
        drop(request.params::<Shutdown>());
        drop(request.params::<Put>());
        drop(request.params::<Get>());
        drop(request.params::<StatParams>());
        drop(request.params::<Remove>());
        drop(request.params::<MakeDir>());
        drop(request.params::<PathParams>());
        drop(request.params::<WriteFile>());
        drop(request.params::<ClockSync>());
        drop(request.params::<Reseed>());
    }
    any
}

/// Reads `bytes` as a frame with a job, and what follows the first byte as a tar. Whether they are one of them.
///
/// # Panics
/// If a bound does not hold.
pub fn jobs(bytes: &[u8]) -> bool {
    let mut reader = FrameReader::new(LIMIT);
    for piece in bytes.chunks(61) {
        reader.push(piece);
    }
    let is_job = match reader.state() {
        FrameState::Whole(json) => {
            assert!(json.len() <= LIMIT && bytes[4..].starts_with(json));
            Job::parse(json).is_ok_and(|job| {
                for file in job.files.iter().filter(|file| file.has_good_name()) {
                    let inside = std::path::Path::new("/work").join(&*file.name);
                    assert!(inside.starts_with("/work") && inside.components().count() > 2);
                    assert!(!file.name.split('/').any(|part| part == ".."));
                }
                let _ = Language::named(&job.lang);
                assert!(
                    job.stdin != Input::Batch(Vec::new()),
                    "a batch runs at least once"
                );
                true
            })
        }
        FrameState::TooLong { len } => {
            assert!(len as usize > LIMIT);
            false
        }
        FrameState::Empty | FrameState::Partial => false,
    };
    tree(bytes) || is_job
}

fn tree(bytes: &[u8]) -> bool {
    let (mut reader, mut rest, mut entries) = (tar::Reader::default(), bytes, 0);
    while let Some((block, behind)) = rest.split_first_chunk() {
        rest = behind;
        match reader.block(block) {
            Ok(Step::More) => {}
            Ok(Step::Entry(header)) => {
                entries += 1;
                assert!(header.kind == Kind::File || header.size == 0);
                assert!(header.mode <= 0o7777);
                let mut again = Vec::new();
                header.encode(&mut again);
                assert_eq!(again.len() % tar::BLOCK_BYTES, 0);
                let skipped = header.size.saturating_add(tar::padding(header.size) as u64);
                let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(rest.len());
                rest = &rest[skipped..];
            }
            Ok(Step::End) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    entries > 0
}

/// Reads `bytes` as lines that an agent sends, with the result of every method, and as the answer to a framed job. Whether there
/// is a message.
///
/// # Panics
/// If a bound does not hold, or an error cannot be told.
pub fn replies(bytes: &[u8]) -> bool {
    let mut any = false;
    for line in lines_of(bytes, announced_by_agent) {
        match Incoming::parse(&line) {
            Ok(
                Incoming::Response {
                    outcome: Ok(payload), ..
                }
                | Incoming::Notification { params: payload, .. },
            ) => {
                any = true;
                drop(payload.read::<Pong>());
                drop(payload.read::<ExecResult>());
                drop(payload.read::<Status>());
                drop(payload.read::<Output>());
                drop(payload.read::<Transferred>());
                drop(payload.read::<FileStatus>());
                drop(payload.read::<FileContent>());
                drop(payload.read::<Listing>());
                drop(payload.read::<ClockSynced>());
            }
            Ok(Incoming::Response {
                outcome: Err(error), ..
            }) => {
                any = true;
                assert!(error.to_string().contains(&error.code.to_string()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let mut reader = FrameReader::new(LIMIT);
    reader.push(bytes);
    if let FrameState::Whole(json) = reader.state() {
        any |= serde_json::from_slice::<JobResult>(json).is_ok();
        any |= serde_json::from_slice::<Vec<JobResult>>(json).is_ok();
    }
    any
}
