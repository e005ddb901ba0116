//! What is drawn, and what names cannot do to it.

use super::*;

fn sample() -> Timeline {
    let ms = Duration::from_millis;
    let stamps = [
        ("stage1_start", 1900),
        ("modules_loaded", 2200),
        ("root_mounted", 2300),
        ("pid1_start", 2310),
        ("mounts_done", 2350),
        ("odd_<thing>", 2360),
        ("agent_listening", 2370),
        ("first_answer", 2390),
    ];
    Timeline {
        kernel_start: ms(150),
        stamps: stamps.map(|(event, at)| (event.to_owned(), ms(at))).to_vec(),
        answered: ms(2400),
    }
}

#[test]
fn every_moment_of_the_boot_is_in_one_stretch() {
    let stretches = stretches(&sample());
    let mut at = Duration::ZERO;
    for stretch in &stretches {
        assert_eq!(stretch.from, at, "{stretch:?}");
        at = stretch.to;
    }
    assert_eq!(at, Duration::from_millis(2400));
    let labels: Vec<&str> = stretches.iter().map(|stretch| &*stretch.label).collect();
    assert_eq!(
        labels[..3],
        ["to the kernel's first tick", "kernel", "modules load"]
    );
    assert_eq!(labels[labels.len() - 1], "first answer");
}

#[test]
fn a_stamp_after_the_answer_is_left_out() {
    let mut timeline = sample();
    timeline.stamps.push(("late".to_owned(), Duration::from_secs(9)));
    assert_eq!(stretches(&timeline).len(), stretches(&sample()).len());
}

/// Whatever stands in names, the picture is XML: every bracket and ampersand in a text is escaped.
#[test]
fn names_cannot_break_the_picture() {
    let svg = svg::draw("a & <b> \"c\"\u{1b}", &stretches(&sample()), sample().answered);
    assert!(svg.contains("a &amp; &lt;b&gt; &quot;c&quot;\u{fffd}"), "{svg}");
    assert!(svg.contains("odd &lt;thing&gt;"), "{svg}");
    let (opened, closed) = (svg.matches("<text").count(), svg.matches("</text>").count());
    assert_eq!(opened, closed);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(
        !svg.contains("href") && !svg.contains("url("),
        "it needs nothing from elsewhere"
    );
    // A boot of no time at all is no division by zero.
    let empty = svg::draw("", &[], Duration::ZERO);
    assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
}

#[test]
fn times_are_short() {
    for (us, text) in [
        (700, "0.7 ms"),
        (47_000, "47 ms"),
        (999_400, "999 ms"),
        (1_834_000, "1.83 s"),
    ] {
        assert_eq!(svg::took(Duration::from_micros(us)), text);
    }
}

#[test]
fn the_file_appears_whole_or_the_reason_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.svg");
    write(&path, &sample(), "x").unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("first answer"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = write(&folder.path().join("none/out.svg"), &sample(), "x").unwrap_err();
    assert!(error.to_string().contains("out.svg"), "{error}");
}
