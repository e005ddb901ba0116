//! What goes wrong between us and a store, and what becomes of it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use firebrick_bucket::{Bucket, Options};
use firebrick_store::{ObjectError, Objects as _, Swap};
use firebrick_testkit::fault::{Answer, End, Request, Server};
use firebrick_testkit::slow::SlowServer;
use firebrick_testkit::stores::{self, Store};

use crate::contract;
use crate::support::{noise, open, options};

/// A proxy that spoils the first answer to every question but the one that ends an upload, which has a test of its own.
fn spoiling_first(store: &Store, spoil: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Server {
    let asked = Mutex::new(BTreeSet::new());
    Server::before(&store.host(), move |request, ask| {
        let range = request.header("range").unwrap_or("");
        let question = format!("{} {} {range}", request.method, request.target);
        // An upload has another name every time it is begun.
        let question = question.split("uploadId").next().unwrap_or("").to_owned()
            + request.query("partNumber").unwrap_or("");
        if asked.lock().unwrap().insert(question) && !ends_upload(request) {
            spoil(ask())
        } else {
            ask()
        }
    })
    .unwrap()
}

fn ends_upload(request: &Request) -> bool {
    request.method == "POST" && request.query("uploadId").is_some()
}

fn everything(bucket: &Bucket) {
    let bytes = noise(300_000);
    bucket.put("a/one", bytes.clone()).unwrap();
    assert_eq!(bucket.size("a/one").unwrap(), Some(300_000));
    assert_eq!(
        bucket.get_range("a/one", 1_000..200_000).unwrap(),
        bytes[1_000..200_000]
    );
    assert_eq!(bucket.get("a/one", 300_000).unwrap().unwrap().0, bytes);
    assert_eq!(bucket.list("a/").unwrap().len(), 1);
    bucket.delete("a/one").unwrap();
    assert_eq!(bucket.swap("name", b"1".to_vec(), None).unwrap(), Swap::Done);
    let (_, version) = bucket.get("name", 9).unwrap().unwrap();
    assert_eq!(
        bucket.swap("name", b"2".to_vec(), Some(&version)).unwrap(),
        Swap::Done
    );
    assert_eq!(bucket.get("name", 9).unwrap().unwrap().0, b"2");
    bucket.delete("name").unwrap();
}

#[test]
fn every_first_answer_may_be_lost_or_an_error() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let spoils: [fn(Answer) -> Answer; 3] = [
        |answer| answer.ending(End::Lost),
        |_| Answer::new(500, "<Error><Code>InternalError</Code></Error>"),
        |_| Answer::new(503, "<Error><Code>SlowDown</Code></Error>").with("Retry-After", "0"),
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let server = spoiling_first(&store, spoil);
        let bucket = open(
            &format!("s3://fbtest/{number}"),
            store.variables_by(server.port()),
        );
        everything(&bucket);
        contract::files(&bucket, 9 << 20);
    }
}

#[test]
fn bodies_that_are_cut_go_on_where_they_ended() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let server = spoiling_first(&store, |answer| {
        let half = answer.body.len() / 2;
        answer.ending(End::Cut(half))
    });
    let bucket = open("s3://fbtest", store.variables_by(server.port()));
    everything(&bucket);
    contract::files(&bucket, 9 << 20);
    let ranges: Vec<String> = server
        .requests()
        .iter()
        .filter_map(|request| request.header("range").map(str::to_owned))
        .collect();
    // Half of 199,000 bytes came the first time.
    assert!(ranges.contains(&"bytes=1000-199999".to_owned()), "{ranges:?}");
    assert!(ranges.contains(&"bytes=100500-199999".to_owned()), "{ranges:?}");
}

#[test]
fn the_last_answer_of_an_upload_may_be_lost() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    for (key, end) in [("lost", End::Lost), ("cut", End::Cut(50))] {
        let server = Server::before(&store.host(), move |request, ask| {
            let answer = ask();
            if ends_upload(request) {
                answer.ending(end)
            } else {
                answer
            }
        })
        .unwrap();
        let bucket = open("s3://fbtest", store.variables_by(server.port()));
        let file = tempfile::tempfile().unwrap();
        file.set_len(9 << 20).unwrap();
        // Whether it was done the store cannot say again; never is it called missing.
        let error = bucket.put_file(key, &file, &|_| ()).unwrap_err();
        assert!(matches!(error, ObjectError::Failed { .. }), "{key}: {error:?}");
        assert_eq!(bucket.size(key).unwrap(), Some(9 << 20));
    }
}

#[test]
fn a_server_says_how_long_to_wait() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::new(503, "").with("Retry-After", "1"),
        // S3's odd way to say that the connection was slow.
        1 => Answer::new(400, "<Error><Code>RequestTimeout</Code></Error>"),
        2 => Answer::new(200, "").with("ETag", "\"x\""),
        _ => Answer::new(429, "").with("Retry-After", "3600"),
    })
    .unwrap();
    let bucket = open("s3://b", variables(server.port()));
    let began = Instant::now();
    bucket.put("k", Vec::new()).unwrap();
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&began.elapsed()));
    // An hour is too long: it is said at once.
    let began = Instant::now();
    let error = bucket.put("k", Vec::new()).unwrap_err();
    assert!(matches!(error, ObjectError::Failed { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(server.requests().len(), 4);
    // Without TLS the body is part of the signature: this is the digest of nothing.
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(server.requests()[0].header("x-amz-content-sha256"), Some(digest));
}

#[test]
fn silence_ends() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let answer = Answer::new(206, noise(1000))
            .with("ETag", "\"x\"")
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        let at: usize = request
            .header("range")
            .map_or(0, |range| range[6..].split('-').next().unwrap().parse().unwrap());
        let answer = Answer {
            body: answer.body[at..].to_vec(),
            ..answer.with("Content-Range", format!("bytes {at}-999/1000"))
        };
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => answer.ending(End::Held(300)),
            1 => answer,
            _ => answer.ending(End::Held(0)),
        }
    })
    .unwrap();
    let mut quick = options(variables(server.port()));
    quick.silence = Duration::from_millis(600);
    quick.retry.retries = 1;
    let bucket = Bucket::open("s3://b", quick).unwrap();
    assert_eq!(bucket.get_range("k", 0..1000).unwrap(), noise(1000));
    let began = Instant::now();
    let error = bucket.get_range("k", 0..1000).unwrap_err();
    assert!(matches!(error, ObjectError::Unreachable { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn servers_that_give_next_to_nothing_are_left() {
    let headers = "ETag: \"x\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let trickling = || SlowServer::trickling(200, headers, Duration::from_millis(20)).unwrap();
    for server in [SlowServer::silent().unwrap(), trickling()] {
        let mut quick = options(variables(server.address.port()));
        quick.silence = Duration::from_millis(400);
        quick.retry.limit = Duration::from_millis(1000);
        quick.retry.retries = 6;
        let bucket = Bucket::open("s3://b", quick).unwrap();
        type Ask = fn(&Bucket) -> Result<(), ObjectError>;
        let asks: [Ask; 4] = [
            |bucket| bucket.get("index.json", 10_000).map(drop),
            |bucket| bucket.list("").map(drop),
            |bucket| bucket.list_top().map(drop),
            |bucket| bucket.swap("index.json", vec![1], None).map(drop),
        ];
        for (number, ask) in asks.into_iter().enumerate() {
            let before = server.requests();
            let began = Instant::now();
            let asked = ask(&bucket);
            // To a write it is an answer, whatever comes behind the headers.
            assert!(asked.is_err() || number == 3, "{number}: {asked:?}");
            assert!(began.elapsed() < Duration::from_secs(10), "{number}");
            let tries = server.requests() - before;
            assert!(tries <= 2, "{number}: {tries} tries");
        }
    }
}

#[test]
fn hostile_answers_end_in_errors() {
    let honest = |request: &Request| {
        let _ = request;
        Answer::new(206, noise(1000))
            .with("ETag", "\"x\"")
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    let long = vec![b'x'; 20 << 20];
    let endless = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>";
    let odd = "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>odd//b</Key><Size>1</Size>\
               <LastModified>2020-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>";
    let server = Server::start(move |request| match request.path() {
        // More bytes than were asked for.
        "/b/more" => honest(request).with("Content-Range", "bytes 0-9/1000"),
        // Other bytes than were asked for.
        "/b/other" => honest(request).with("Content-Range", "bytes 10-1009/2000"),
        // No range at all.
        "/b/whole" => Answer {
            status: 200,
            ..honest(request)
        },
        "/b/words" => Answer::new(403, long.clone()),
        "/b/away" => Answer::new(302, "").with("Location", "http://192.0.2.1/"),
        "/b" if request.query("prefix") == Some("endless%2F") => Answer::new(200, endless),
        "/b" if request.query("prefix") == Some("odd%2F") => Answer::new(200, odd),
        "/b" => Answer::new(200, long.clone()),
        _ => Answer::new(200, "").with("Content-Length", "none"),
    })
    .unwrap();
    let mut quick = options(variables(server.port()));
    quick.silence = Duration::from_millis(500);
    let bucket = Bucket::open("s3://b", quick).unwrap();
    for key in ["more", "other", "whole", "words", "away", "garbage"] {
        let error = bucket.get_range(key, 0..10).unwrap_err();
        let text = format!(
            "{error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        );
        assert!(text.len() < 1000, "{key}: {text}");
        assert!(
            matches!(error, ObjectError::Failed { .. } | ObjectError::Denied { .. }),
            "{key}: {error:?}"
        );
    }
    for prefix in ["", "endless/", "odd/"] {
        let error = bucket.list(prefix).unwrap_err();
        let words = std::error::Error::source(&error).unwrap().to_string();
        assert!(prefix != "odd/" || words.contains("odd//b"), "{words}");
        assert!(matches!(error, ObjectError::Failed { .. }), "{prefix}: {error:?}");
    }
}

#[test]
fn another_region_is_named() {
    let server = Server::start(|request| match request.method.as_str() {
        "PUT" => Answer::new(301, "<Error><Code>PermanentRedirect</Code></Error>")
            .with("x-amz-bucket-region", "eu-west-3"),
        _ => Answer::new(
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>",
        ),
    })
    .unwrap();
    let bucket = open("s3://b", variables(server.port()));
    for error in [
        bucket.put("k", Vec::new()).unwrap_err(),
        bucket.list("").unwrap_err(),
    ] {
        match &error {
            ObjectError::WrongRegion { region, .. } => assert_eq!(region.as_deref(), Some("eu-west-3")),
            error => panic!("{error:?}"),
        }
        assert_eq!(error.to_string(), "s3://b is in region eu-west-3");
    }
}

#[test]
fn nobody_there() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let bucket = open("s3://b", variables(closed));
    for error in [
        bucket.put("k", Vec::new()).unwrap_err(),
        bucket.swap("k", Vec::new(), None).map(|_| ()).unwrap_err(),
    ] {
        match error {
            ObjectError::Unreachable { endpoint, .. } => {
                assert_eq!(endpoint, format!("http://127.0.0.1:{closed}"))
            }
            error => panic!("{error:?}"),
        }
    }
}

#[test]
fn parts_go_side_by_side_and_end_with_the_upload() {
    // What is under way now, and the most that ever was.
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(
        |request| match (request.method.as_str(), request.query("partNumber")) {
            ("PUT", Some("9")) => Answer::new(403, "<Error><Code>AccessDenied</Code></Error>"),
            ("PUT", Some(part)) => {
                MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                NOW.fetch_sub(1, Ordering::SeqCst);
                Answer::new(200, "").with("ETag", part)
            }
            ("POST", None) => Answer::new(
                200,
                "<InitiateMultipartUploadResult><UploadId>up</UploadId></InitiateMultipartUploadResult>",
            ),
            _ => Answer::new(204, ""),
        },
    )
    .unwrap();
    let small = Options {
        part_bytes: 100_000,
        parallel: 3,
        ..options(variables(server.port()))
    };
    let bucket = Bucket::open("s3://b", small).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1_000_000).unwrap();
    let error = bucket.put_file("k", &file, &|_| ()).unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error:?}");
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
    let aborts = server
        .requests()
        .iter()
        .filter(|request| request.method == "DELETE" && request.query("uploadId") == Some("up"))
        .count();
    assert_eq!(aborts, 1);
}

#[test]
fn calls_of_many_threads_run_at_once() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(400));
        Answer::new(200, "").with("ETag", "\"x\"")
    })
    .unwrap();
    let bucket = open("s3://b", variables(server.port()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let bucket = &bucket;
            scope.spawn(move || bucket.put(&format!("k{number}"), Vec::new()).unwrap());
        }
    });
    assert!(
        began.elapsed() < Duration::from_millis(16 * 400 / 2),
        "{:?}",
        began.elapsed()
    );
}

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
