//! Examples that can be taken over, and mistakes that are told.

use super::super::EdgeConfig;
use crate::config::Format;

const SHIPPED: &str = include_str!("../../../../deploy/config/edge.toml");

/// The example shows every key with its default, but for those that have none.
#[test]
fn the_examples_of_sources_can_be_taken_over() {
    let example: Vec<&str> = SHIPPED
        .lines()
        .skip_while(|line| *line != "# [[source.filelog]]")
        .take_while(|line| !line.starts_with("# The plugin chain"))
        .filter_map(|line| line.strip_prefix("# "))
        // What is said about a kind of source stands before its table.
        .filter(|line| line.starts_with(['#', '[']) || line.contains(" = "))
        .collect();
    let text = example.join("\n");
    let config = EdgeConfig::from_toml(&text).unwrap();
    let minimal = EdgeConfig::from_toml(
        "[[source.filelog]]\nname = \"app\"\ninclude = [\"/var/log/app/*.log\"]\n\
         [[source.syslog]]\nname = \"network\"\nudp = \"127.0.0.1:514\"\n\
         [[source.prometheus]]\nname = \"node\"\ntargets = [\"http://127.0.0.1:9100/metrics\"]\n",
    )
    .unwrap();
    let (mut shown, expected) = (config.source, minimal.source);
    // Every key of a source is in its example.
    let keys = toml::Table::try_from(&shown).unwrap();
    let given = text.parse::<toml::Table>().unwrap();
    for kind in ["filelog", "syslog", "prometheus"] {
        let names = |table: &toml::Value| table[0].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&keys[kind]), names(&given["source"][kind]), "{kind}");
    }
    let file = &mut shown.filelog[0];
    assert!(file.pattern.take().is_some() && file.multiline.take().is_some() && file.service.take().is_some());
    (file.format, file.attributes) = (Format::None, Default::default());
    let syslog = &mut shown.syslog[0];
    assert!(syslog.tls.take().is_some_and(|tls| tls.client_ca.is_some()));
    syslog.tcp.clear();
    let prometheus = &mut shown.prometheus[0];
    assert!(prometheus.ca.take().is_some() && prometheus.token_file.take().is_some());
    prometheus.labels.clear();
    assert_eq!(shown, expected);
}

#[test]
fn mistakes_are_told_with_line_key_and_hint() {
    let check = |text: &str, line: usize, key: &str, says: &str| {
        let error = EdgeConfig::from_toml(text).unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (Some(line), Some(key)), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    let file = |more: &str| format!("[[source.filelog]]\nname = \"a\"\ninclude = [\"/x\"]\n{more}");
    check(&file("fromat = \"json\""), 4, "fromat", "did you mean `format`?");
    check(
        &file("format = \"regex\""),
        4,
        "source.filelog.format",
        "needs a `pattern`",
    );
    check(&file("pattern = \"(?<a>x)\""), 4, "source.filelog.pattern", "goes with");
    check(
        &file("format = \"regex\"\npattern = \"(x\""),
        5,
        "source.filelog.pattern",
        "unclosed group",
    );
    check(
        &file("format = \"regex\"\npattern = \"x\""),
        5,
        "source.filelog.pattern",
        "named group",
    );
    check(
        &file("multiline = { start = \"[\" }"),
        4,
        "source.filelog.multiline",
        "unclosed",
    );
    check(&file("multiline = \"never\""), 4, "multiline", "indented");
    check(
        &file("max_event_bytes = \"4 MiB\""),
        4,
        "source.filelog.max_event_bytes",
        "a quarter",
    );
    check(
        "[[source.filelog]]\nname = \"a b\"\ninclude = [\"x\"]",
        2,
        "source.filelog.name",
        "no name",
    );
    let syslog = |more: &str| format!("[[source.syslog]]\nname = \"a\"\n{more}");
    check(&syslog(""), 2, "source.syslog.name", "has no address");
    check(&syslog("udp = \"0.0.0.0:514\""), 3, "source.syslog.udp", "client_ca");
    check(
        &syslog("tcp = \"127.0.0.1:1\"\nzone = \"Mars\""),
        4,
        "source.syslog.zone",
        "+02:00",
    );
    let scrape = |more: &str| format!("[[source.prometheus]]\nname = \"a\"\n{more}");
    check(
        &scrape("targets = [\"localhost\"]"),
        3,
        "source.prometheus.targets",
        "http://",
    );
    check(
        &scrape("targets = [\"http://a\"]\ninterval = \"5 s\"\ntimeout = \"6 s\""),
        5,
        "source.prometheus.timeout",
        "no longer than",
    );
    let twice = format!("{}\n{}", file(""), syslog("udp = \"127.0.0.1:1\""));
    let error = EdgeConfig::from_toml(&twice).unwrap_err();
    assert!(error.to_string().contains("the name of another source"), "{error}");
}
