//! `firebrick store gc`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use firebrick_store::{Amount, Collected, GcOptions};
use serde_json::{Value, json};

use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;

/// Remove what no name in a store needs any more
///
/// What is found needless is put on a list first, and removed by a gc that comes at least the grace later. Uploads may run meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Change nothing; say what would happen
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// How long a part must have been needless: seconds, or a number with s, m, h or d; 0 only where nobody writes meanwhile
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    grace: Duration,

    /// Take its name from all but so many versions of each name first, the current one among them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,

    /// Print a JSON object with counts and bytes
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let store = args
        .store
        .open_existing(home, remote::listener(&Arc::new(Steps::new(talk, 1)), talk))?;
    let collected = store
        .collect(&GcOptions {
            dry_run: args.dry_run,
            grace: args.grace,
            keep: args.keep.and_then(|keep| usize::try_from(keep).ok()),
            now: SystemTime::now(),
        })
        .with_context(|| format!("cannot collect {}", store.backend().address()))?;
    if args.json {
        return write_stdout(&text::json_line(&to_json(&collected)));
    }
    for version in &collected.dropped {
        talk.say(&format!(
            "{} {}@{}",
            if args.dry_run { "would drop" } else { "dropped" },
            version.tagged,
            version.digest
        ));
    }
    let said = |amount: &Amount| format!("{} ({})", text::grouped(amount.count), text::bytes(amount.bytes));
    let rows = [
        ("needed:", said(&collected.kept)),
        ("waiting:", said(&collected.condemned)),
        (
            if args.dry_run { "would go:" } else { "removed:" },
            said(&collected.deleted),
        ),
        ("leftovers:", said(&collected.leftovers)),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    write_stdout(text::table(&rows).as_bytes())
}

fn to_json(collected: &Collected) -> Value {
    let amount = |amount: &Amount| json!({ "count": amount.count, "bytes": amount.bytes });
    let dropped = collected
        .dropped
        .iter()
        .map(|version| format!("{}@{}", version.tagged, version.digest));
    json!({
        "kept": amount(&collected.kept),
        "condemned": amount(&collected.condemned),
        "deleted": amount(&collected.deleted),
        "leftovers": amount(&collected.leftovers),
        "dropped": dropped.collect::<Vec<_>>(),
    })
}

/// `90`, `90s`, `15m`, `24h`, `7d`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is no time: expected seconds, or a number with s, m, h or d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "h",
            "1w",
            "-1",
            "1.5h",
            "99999999999999999999",
            "999999999999999999d",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
