//! Dockerfiles of the usual kinds, and those that are refused.

use super::*;
use crate::recipe::{Command, CopySource};

fn parse(text: &str) -> Result<Recipe, Problems> {
    parse_with(text, &[])
}

fn parse_with(text: &str, arguments: &[(&str, &str)]) -> Result<Recipe, Problems> {
    let arguments = arguments
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let words = |os: &str, architecture: &str, variant: &str| PlatformWords {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
    };
    let given = Given {
        arguments: arguments.collect(),
        target: words("linux", "arm", "v7"),
        build: words("linux", "amd64", ""),
    };
    parse_dockerfile("Dockerfile", text, &given, &Checks::default())
}

fn commands(recipe: &Recipe) -> Vec<String> {
    let shown = |step: &Step| match &step.kind {
        StepKind::Run {
            command: Command::Shell(script),
            ..
        } => format!("{} script {script}", step.line),
        StepKind::Run {
            command: Command::Exec(words),
            ..
        } => match words.as_slice() {
            [sh, c, script] if sh == "/bin/sh" && c == "-c" => format!("{} sh {script}", step.line),
            words => format!("{} exec {}", step.line, words.join("|")),
        },
        StepKind::Copy {
            source,
            to,
            mode,
            owner,
        } => {
            let source = match source {
                CopySource::Path(path) => path.clone(),
                other => format!("{other:?}"),
            };
            let mode = mode.map(|mode| format!(" {mode:o}")).unwrap_or_default();
            let owner = owner
                .as_ref()
                .map(|owner| format!(" {}", owner.user))
                .unwrap_or_default();
            format!("{} copy {source} to {to}{mode}{owner}", step.line)
        }
    };
    recipe.steps.iter().map(shown).collect()
}

const USUAL: &str = r#"# syntax=docker/dockerfile:1
ARG VERSION=3.12
FROM --platform=linux/arm64 python:${VERSION}-slim AS base
LABEL maintainer="me" \
      version=1
ARG EXTRA=jq
ENV APP_HOME=/srv/app PATH="/opt/bin:$PATH" \
    GREETING='hello $USER'
ENV OLD form of it
WORKDIR $APP_HOME
# a comment
RUN apt-get update && \
    # inside
    apt-get install -y $EXTRA \

    && rm -rf /var/lib/apt/lists/*
RUN ["pip", "install", "flask"]
COPY --chown=app:app --chmod=755 a.py b.py ./lib/
COPY . .
ADD config.json /etc/app.json
USER app
EXPOSE 8080
EXPOSE 8081
ENTRYPOINT ["python", "-m"]
CMD ["app"]
"#;

#[test]
fn a_usual_one_is_read_whole() {
    let recipe = parse(USUAL).unwrap();
    assert_eq!(recipe.from, Some(From::Image("python:3.12-slim".to_owned())));
    assert_eq!(recipe.options["platform"], "linux/arm64");
    assert_eq!(
        commands(&recipe),
        [
            "10 copy Folder to srv/app",
            "12 sh apt-get update &&     apt-get install -y $EXTRA     && rm -rf /var/lib/apt/lists/*",
            "17 exec pip|install|flask",
            "18 copy a.py to srv/app/lib/ 755 app",
            "18 copy b.py to srv/app/lib/ 755 app",
            "19 copy . to srv/app/",
            "20 copy config.json to etc/app.json",
        ]
    );
    let env: Vec<String> = recipe
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        env,
        [
            "APP_HOME=/srv/app",
            "PATH=/opt/bin:",
            "GREETING=hello $USER",
            "OLD=form of it"
        ]
    );
    let StepKind::Run { env, workdir, .. } = &recipe.steps[1].kind else {
        panic!()
    };
    assert_eq!(
        env[0],
        ("EXTRA".to_owned(), "jq".to_owned()),
        "ARGs are variables of RUN"
    );
    assert_eq!(workdir.as_deref(), Some("/srv/app"));
    assert_eq!(
        (
            recipe.user.as_deref(),
            recipe.entrypoint.unwrap().len(),
            recipe.cmd.unwrap()
        ),
        (Some("app"), 2, vec!["app".to_owned()])
    );
    assert_eq!(recipe.notes.len(), 2, "{:?}", recipe.notes);
    assert!(
        recipe.notes[0].starts_with("line 22: EXPOSE is left out"),
        "{:?}",
        recipe.notes
    );
}

#[test]
fn variables_have_defaults_and_values_from_outside() {
    let text = "ARG TAG\nFROM a:${TAG:-1}\nARG TAG\nARG B=2\nENV C=${B:+x}${D:-$TAG}\\$E F=\"$B y\"\n";
    let env = |recipe: Recipe| {
        recipe
            .env
            .into_iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect::<Vec<_>>()
    };
    let plain = parse(text).unwrap();
    assert_eq!(plain.from, Some(From::Image("a:1".to_owned())));
    let given = parse_with(text, &[("TAG", "9"), ("B", "")]).unwrap();
    assert_eq!(given.from, Some(From::Image("a:9".to_owned())));
    assert_eq!(env(given)[0], "C=9$E");
    let text = "FROM a\nENV A=\"x  y\" B='$A' C=\\$A D=a\\ b\nENV E=$A";
    assert_eq!(
        env(parse(text).unwrap()),
        ["A=x  y", "B=$A", "C=$A", "D=a b", "E=x  y"]
    );
}

#[test]
fn platforms_are_told_where_they_are_asked_for() {
    let text = "ARG TARGETOS\nFROM --platform=$BUILDPLATFORM a:${TARGETARCH}-$TARGETOS\nENV A=x$TARGETARCH\nARG TARGETPLATFORM TARGETARCH \
                TARGETVARIANT BUILDPLATFORM BUILDARCH BUILDOS BUILDVARIANT\nARG TARGETOS=own\n\
                ENV B=$TARGETPLATFORM,$TARGETARCH,$TARGETVARIANT,$BUILDPLATFORM,$BUILDARCH,$BUILDOS,$BUILDVARIANT,$TARGETOS\nRUN x\n";
    let told = |arguments: &[(&str, &str)]| {
        let recipe = parse_with(text, arguments).unwrap();
        assert_eq!(recipe.notes, Vec::<String>::new());
        assert_eq!(recipe.options["platform"], "linux/amd64");
        let Some(From::Image(image)) = recipe.from else {
            panic!()
        };
        (image, recipe.env[0].1.clone(), recipe.env[1].1.clone())
    };
    // In the stage they are there once an ARG asks for them.
    let (image, before, behind) = told(&[]);
    assert_eq!((image.as_str(), before.as_str()), ("a:arm-linux", "x"));
    assert_eq!(behind, "linux/arm/v7,arm,v7,linux/amd64,amd64,linux,,own");
    let (image, _, behind) = told(&[("TARGETARCH", "given"), ("TARGETOS", "os")]);
    assert_eq!(image, "a:given-os");
    assert_eq!(behind, "linux/arm/v7,given,v7,linux/amd64,amd64,linux,,os");
    let recipe = parse("FROM a\nARG TARGETARCH\nRUN x\n").unwrap();
    let StepKind::Run { env, .. } = &recipe.steps[0].kind else {
        panic!()
    };
    assert_eq!(env, &[("TARGETARCH".to_owned(), "arm".to_owned())]);
}

#[test]
fn arguments_that_nobody_takes_are_told() {
    let notes = |text: &str| parse_with(text, &[("A", "1"), ("NOPE", "1")]).unwrap().notes;
    assert_eq!(
        notes("FROM a\nARG A\n"),
        ["--build-arg NOPE is not used: the Dockerfile has no ARG of that name"]
    );
    assert!(notes("ARG NOPE\nFROM a\nARG A=2\n").is_empty());
    assert_eq!(notes("FROM a\nENV A=1\n").len(), 2);
}

#[test]
fn here_documents_are_scripts_and_files() {
    let text = "FROM a\nENV X=1\nRUN <<EOF\necho $X\necho two\nEOF\nCOPY <<-\"END\" /etc/motd\n\thello $X\nEND\nCOPY <<END /etc/x\nv $X\nEND\nRUN cat <<E > /f\nb\nE\n";
    let recipe = parse(text).unwrap();
    assert_eq!(
        commands(&recipe),
        [
            "3 sh echo $X\necho two\n",
            "7 copy Text(\"hello $X\\n\") to etc/motd",
            "10 copy Text(\"v 1\\n\") to etc/x",
            "13 sh cat <<E > /f\nb\nE\n",
        ]
    );
}

#[test]
fn shells_and_words() {
    let text = "FROM a\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN echo\nCMD echo hi\nRUN [broken\n";
    let recipe = parse(text).unwrap();
    assert_eq!(
        commands(&recipe),
        ["3 exec /bin/bash|-ec|echo", "5 exec /bin/bash|-ec|[broken"]
    );
    assert_eq!(recipe.cmd.unwrap(), ["/bin/bash", "-ec", "echo hi"]);
}

#[test]
fn what_is_refused_says_why_and_what_instead() {
    for (text, told) in [
        (
            "FROM a AS b\nFROM c\n",
            "Dockerfile:2:6: a second FROM begins another stage",
        ),
        ("FROM a\nCOPY --from=b /x /y\n", "only one stage is read"),
        (
            "FROM a\nADD https://x/y /z\n",
            "fetch it, check its digest, and COPY it",
        ),
        ("FROM a\nADD x.tar.gz /z\n", "unpack it, and COPY the folder"),
        (
            "FROM a\nRUN --mount=type=cache,target=/x y\n",
            "nothing of the host is mounted",
        ),
        ("FROM a\nRUN --network=host y\n", "--network=host is refused"),
        ("FROM a\nCOPY ../x /y\n", "leaves the folder of the Dockerfile"),
        ("FROM a\nCOPY x\n", "expected COPY SOURCE… DESTINATION"),
        (
            "FROM a\nONBUILD RUN x\n",
            "ONBUILD is for images that others start from",
        ),
        ("FROM scratch\n", "scratch has nothing to start from"),
        ("RUN x\n", "RUN stands before FROM"),
        ("", "there is no FROM"),
        (
            "FROM a\nCOPPY x /y\n",
            "Dockerfile:2:1: \"COPPY\" is no instruction; did you mean \"COPY\"?",
        ),
        ("FROM a\nENV A\n", "expected ENV NAME=VALUE"),
        ("FROM a\nENV A=\"x\n", "a quote is not closed"),
        ("FROM a\nENV A=${B\n", "a ${ has no }"),
        ("FROM a\nENV A=${B:?x}\n", "is not read: write ${NAME}"),
        ("FROM a\nRUN <<EOF\nx\n", "the here document has no end"),
        ("FROM a\nRUN\n", "RUN names no command"),
        ("FROM a\nUSER a b\n", "is no owner"),
        ("# escape=`\nFROM a\n", "lines are continued with a backslash"),
        ("FROM a b\n", "expected FROM IMAGE"),
        ("FROM a\nCOPY a /x/../y\n", "is no path in the image"),
        ("FROM a\nWORKDIR\n", "Dockerfile:2:1: WORKDIR names no folder"),
        ("FROM a\nWORKDIR $NONE\n", "WORKDIR names no folder"),
        ("FROM a\nSTOPSIGNAL\n", "STOPSIGNAL names no signal"),
        (
            "FROM a\nCOPY f1 sub /ed\n",
            "Dockerfile:2:6: COPY of several sources goes into a folder: end the destination with a slash, /ed/",
        ),
    ] {
        let said = parse(text).expect_err(text).to_string();
        assert!(said.contains(told), "{text}: {said}");
    }
}

#[test]
fn nothing_that_is_written_takes_for_ever() {
    let deep = format!("FROM a\nENV A={}x{}\n", "${B:-".repeat(100), "}".repeat(100));
    assert!(parse(&deep).unwrap_err().to_string().contains("too deep"));
    let mut bomb = String::from("FROM a\nENV A0=aaaaaaaaaaaaaaaa\n");
    for step in 1..40 {
        bomb.push_str(&format!("ENV A{step}=$A{0}$A{0}\n", step - 1));
    }
    assert!(
        parse(&bomb)
            .unwrap_err()
            .to_string()
            .contains("longer than a mebibyte")
    );
    assert!(parse(&"x".repeat(2 << 20)).is_err());
    for text in [
        "FROM a\\",
        "FROM a\n\\",
        "\\\n\\\n",
        "FROM a\nENV \\",
        "\u{feff}FROM a",
        "FROM a\r\nRUN x\r\n",
    ] {
        _ = parse(text);
    }
    assert_eq!(commands(&parse("FROM a\r\nRUN x\r\n").unwrap()), ["2 sh x"]);
}
