//! Plugins of rows, run natively over batches in every form.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::time::Duration;

use sluice_plugin::testing::{Host, Layout, Tester, json};
use sluice_plugin::{matching, state};

mod keep {
    use sluice_plugin::prelude::*;

    #[sluice_plugin(kind = filter, reads = ["severity", "service"])]
    pub fn keep(row: Row) -> bool {
        row.severity() >= WARN || row.service() == "checkout"
    }
}

mod routes {
    use sluice_plugin::prelude::*;

    #[plugin_config]
    #[derive(Default)]
    pub struct Config {
        /// Least status that is set aside.
        pub bad: i64,
        #[serde(default)]
        pub drop: Vec<String>,
    }

    #[sluice_plugin(name = "route-rules", version = "2.1.0", kind = filter, reads = ["attrs.http.route", "attrs.status"])]
    pub fn routes(row: Row, config: &Config) -> Decision {
        if config.drop.iter().any(|route| row.attr("http.route") == *route) {
            Decision::Drop("route")
        } else if row.attr("status") >= config.bad {
            Decision::Quarantine("bad_status")
        } else {
            Decision::Keep
        }
    }
}

mod tidy {
    use sluice_plugin::prelude::*;

    #[plugin_config]
    pub struct Config {
        prefix: String,
    }

    #[derive(Debug)]
    pub struct State {
        prefix: String,
        rows: u64,
    }

    fn prepare(config: Config) -> Result<State, String> {
        if config.prefix.is_empty() {
            return Err("prefix: must not be empty".to_owned());
        }
        Ok(State {
            prefix: config.prefix,
            rows: 0,
        })
    }

    #[sluice_plugin(
        kind = enrich,
        reads = ["severity"],
        writes = ["body", "severity_text", "service", "attrs.code", "attrs.seen"],
        init = prepare,
        config = Config,
    )]
    pub fn tidy(row: &mut RowMut, context: &Context, state: &mut State) {
        state.rows += 1;
        if row.body() == "bad" {
            return row.drop("bad body");
        }
        row.set_body(format!("{}{}", state.prefix, row.body()));
        if row.severity() >= ERROR {
            row.set_severity_text("error");
        }
        if row.service().is_empty() {
            row.set_service("unknown");
        }
        if let Some(code) = row.attr_i64("code") {
            row.set_attr("code", code + 1);
        }
        row.set_attr("seen", context.signal == Signal::Log);
    }
}

mod forgetful {
    use sluice_plugin::prelude::*;

    #[sluice_plugin(kind = filter, reads = ["severity"])]
    pub fn forgetful(row: Row) -> bool {
        row.severity() > 0 || row.service() == "x"
    }

    pub mod writer {
        use sluice_plugin::prelude::*;

        #[sluice_plugin(kind = enrich, reads = ["severity"])]
        pub fn writer(row: &mut RowMut) {
            row.set_attr("zone", "a");
        }
    }
}

const LAYOUTS: [Layout; 2] = [Layout::Plain, Layout::Dictionary];

#[test]
fn a_filter_of_rows_keeps_what_the_function_says() {
    for layout in LAYOUTS {
        let mut keep = Tester::<keep::Keep>::new(json!({})).unwrap();
        keep.layout = layout;
        let after = keep.run(json!([
            {"severity": 9, "service": "shop"},
            {"severity": 13, "service": "shop"},
            {"severity": 9, "service": "checkout"},
            {"severity": 9, "resource:*": {"service.name": "checkout"}},
            {},
        ]));
        assert_eq!(after.error, None);
        assert_eq!(after.rows.len(), 3, "{layout:?}");
        assert_eq!(after.drops["filtered"], 2);
    }
}

#[test]
fn decisions_become_drops_and_quarantine_by_reason() {
    use sluice_plugin::Plugin;
    let description = routes::Routes::describe();
    assert_eq!((&*description.name, &*description.version), ("route-rules", "2.1.0"));
    for layout in LAYOUTS {
        let mut routes = Tester::<routes::Routes>::new(json!({"bad": 500, "drop": ["/health"]})).unwrap();
        routes.layout = layout;
        let after = routes.run(json!([
            {"attrs": {"http.route": "/health", "status": 500}},
            {"attrs": {"http.route": "/", "status": 500}},
            {"attrs": {"http.route": "/", "status": 200.0}},
            {"attrs": {"http.route": 7}},
            {"attrs:*": {"http.route": "/health"}},
            {"attrs:*": {"status": 503.5}},
        ]));
        assert_eq!(after.rows.len(), 2, "{layout:?}: {after:?}");
        assert_eq!(after.drops["route"], 2);
        assert_eq!(after.quarantined["bad_status"], 2);
    }
}

#[test]
fn a_function_changes_rows_and_one_key_keeps_one_value() {
    for layout in LAYOUTS {
        let mut tidy = Tester::<tidy::Tidy>::new(json!({"prefix": "> "})).unwrap();
        tidy.layout = layout;
        let after = tidy.run(json!([
            {"body": "a", "severity": 17, "service": "shop", "attrs": {"code": "41", "other": 1}},
            {"body": "bad"},
            {"body": "a", "severity": 9, "severity_text": "info", "attrs:*": {"code": "1", "rare": 2}},
            {"attrs": {"code": 2.0}},
        ]));
        assert_eq!(after.error, None);
        assert_eq!(after.drops["bad body"], 1);
        let rows: Vec<_> = after.rows.iter().map(sluice_plugin_fixture::normal).collect();
        let expected = json!([
            {"body": "> a", "severity": 17, "severity_text": "error", "service": "shop", "attrs": {"code": 42, "other": 1, "seen": true}},
            {"body": "> a", "severity": 9, "severity_text": "info", "service": "unknown", "attrs": {"code": 2, "rare": 2, "seen": true}},
            {"body": "> ", "service": "unknown", "attrs": {"code": 3, "seen": true}},
        ]);
        for (row, expected) in rows.iter().zip(expected.as_array().unwrap()) {
            let row: serde_json::Map<_, _> = row
                .iter()
                .filter(|(key, _)| !["time", "signal"].contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(serde_json::Value::from(row), *expected, "{layout:?}");
        }
        assert_eq!(rows.len(), 3);
    }
}

#[test]
fn what_was_replaced_is_not_left_in_a_dictionary() {
    let mut tidy = Tester::<tidy::Tidy>::new(json!({"prefix": "x"})).unwrap();
    tidy.layout = Layout::Dictionary;
    let batch = tidy.batch(json!([{"body": "canary"}, {"body": "canary"}]));
    let outcome = tidy.outcome(&batch).unwrap();
    let (_, body) = outcome.columns().iter().find(|(name, _)| name == "body").unwrap();
    let values = sluice_plugin::Text::of(body.as_ref()).unwrap().values().unwrap();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some("xcanary")]);
}

#[test]
fn a_column_that_is_not_declared_is_told_not_read_as_null() {
    let check = |actual: sluice_plugin::testing::Actual, expected: &str| {
        let error = actual.error.unwrap();
        assert!(error.contains(expected), "{error}");
    };
    let mut forgetful = Tester::<forgetful::Forgetful>::new(json!({})).unwrap();
    check(
        forgetful.run(json!([{"service": "x"}])),
        "`service`, which is not declared",
    );
    let mut writer = Tester::<forgetful::writer::Writer>::new(json!({})).unwrap();
    check(writer.run(json!([{}])), "`attrs.zone`, which is not declared");
}

/// Plugins that give back what they were not given.
mod blind {
    use std::sync::Arc;

    use sluice_plugin::arrow_array::{Float64Array, StringArray};
    use sluice_plugin::prelude::*;
    use sluice_plugin::row;

    /// Changes some rows of a column.
    pub struct Rows(pub &'static str);

    impl Plugin for Rows {
        type Config = NoConfig;
        fn describe() -> Description {
            Description::new("rows", "0.1.0", Kind::Enrich)
                .reads(["severity", "body", "attrs.a"])
                .writes(["body", "attrs.a"])
        }
        fn needs(&self) -> Option<Vec<String>> {
            Some(vec!["severity".to_owned()])
        }
        fn init(_: NoConfig) -> Result<Self, String> {
            Ok(Rows("severity"))
        }
        fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
            let writes = Rows::describe().writes;
            row::change(batch, &[self.0.to_owned()], &writes, |row| {
                if row.severity() > 9 {
                    row.set_body("hidden");
                }
            })
        }
    }

    /// Gives back a column that has values in some rows, or in all of them.
    pub struct Columns {
        all: bool,
    }

    #[plugin_config]
    pub struct Config {
        all: bool,
    }

    impl Plugin for Columns {
        type Config = Config;
        fn describe() -> Description {
            Description::new("columns", "0.1.0", Kind::Enrich)
                .reads(["severity"])
                .writes(["body", "weight"])
        }
        fn init(config: Config) -> Result<Self, String> {
            Ok(Columns { all: config.all })
        }
        fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
            let rows = 0..batch.rows();
            let body: StringArray = rows.clone().map(|row| (self.all || row == 0).then_some("x")).collect();
            let weight: Float64Array = rows.map(|_| Some(2.0)).collect();
            Ok(Outcome::unchanged()
                .column("body", Arc::new(body))
                .column("weight", Arc::new(weight)))
        }
    }
}

#[test]
fn values_of_rows_that_a_plugin_was_not_given_are_not_lost() {
    let rows = json!([{"body": "a", "severity": 9}, {"body": "b", "severity": 17}]);
    let check = |actual: sluice_plugin::testing::Actual, expected: &str| {
        let error = actual.error.unwrap();
        assert!(error.contains(expected), "{error}");
    };
    let mut some = Tester::<blind::Rows>::new(json!({})).unwrap();
    check(some.run(rows.clone()), "changes `body` without reading it");
    let mut some = Tester::<blind::Columns>::new(json!({"all": false})).unwrap();
    check(some.run(rows.clone()), "gives back `body` with rows that have no value");
    // Who has something for every row takes nothing away.
    let mut all = Tester::<blind::Columns>::new(json!({"all": true})).unwrap();
    let after = all.run(rows);
    assert_eq!(after.error, None);
    assert_eq!(after.rows[1]["body"], "x");
}

#[test]
fn a_wrong_configuration_is_told() {
    let error = |config| Tester::<routes::Routes>::new(config).err().unwrap();
    assert_eq!(
        error(json!({"bad": 1, "dorp": []})),
        "dorp: unknown field `dorp`, expected `bad` or `drop`; did you mean `drop`?"
    );
    assert_eq!(error(json!({})), "missing field `bad`");
    let error = Tester::<tidy::Tidy>::new(json!({"prefix": ""})).err().unwrap();
    assert_eq!(error, "prefix: must not be empty");
    assert!(Tester::<keep::Keep>::new(json!({"x": 1})).is_err());
}

#[test]
fn the_stand_in_for_the_host_keeps_state_as_the_contract_says() {
    Host::reset();
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(
        state::insert_many(&["a", "b", "a"], seconds(10)),
        Ok(vec![true, true, false])
    );
    assert_eq!(state::add("n", 3), Ok(3));
    assert_eq!(state::add("n", -1), Ok(2));
    state::put("k", "v", None).unwrap();
    assert_eq!(
        state::get_many(&["k", "a", "none"]),
        [Some(b"v".to_vec()), Some(vec![]), None]
    );
    Host::set_clock(10_000);
    assert_eq!(state::get("a"), None);
    assert_eq!(state::insert("a", None), Ok(true));
    state::remove("k");
    assert_eq!(state::get("k"), None);
    assert!(matches!(state::put("", "v", None), Err(state::Problem::Invalid(_))));
    Host::set_state_bytes(2000);
    assert_eq!(state::put("big", vec![0; 2000], None), Err(state::Problem::Full));
    for n in 0..100 {
        assert_eq!(state::insert(format!("key {n}"), None), Ok(true));
    }
    assert_eq!(state::get("key 0"), None);
    assert_eq!(state::get("key 99"), Some(vec![]));
    assert_eq!(state::get("n"), Some(2i64.to_le_bytes().to_vec()));
}

#[test]
fn patterns_are_found_by_row_whatever_the_layout() {
    let set = matching::PatternSet::of(&[
        matching::Pattern::Literal("a.c".to_owned()),
        matching::Pattern::LiteralAnyCase("STRASSE".to_owned()),
        matching::Pattern::Regex(r"\d+".to_owned()),
    ])
    .unwrap();
    for layout in LAYOUTS {
        let mut tester = Tester::<keep::Keep>::new(json!({})).unwrap();
        tester.layout = layout;
        let records =
            tester.batch(json!([{"body": "abc"}, {}, {"body": "1 a.c 22"}, {"body": "strasse"}, {"body": "abc"}]));
        let batch = sluice_plugin::Batch::from(records);
        let rows = set.rows_with(&batch, "body").unwrap();
        assert_eq!(rows.iter().collect::<Vec<_>>(), [false, false, true, true, false]);
        assert!(set.find_in_column(&batch, "name").unwrap().is_empty());
        let hits = set.find_in(&batch.text("body").unwrap()).unwrap();
        let places: Vec<_> = hits.iter().map(|hit| (hit.start, hit.end, hit.pattern)).collect();
        assert_eq!(places, [(0, 1, 2), (2, 5, 0), (6, 8, 2), (0, 7, 1)]);
    }
    assert!(matching::PatternSet::new(&["("]).is_err());
}
