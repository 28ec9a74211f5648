//! Random histories of one package against what must hold after every step.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Install { version: Version, activate: bool },
    Promote(Version),
    Rollback(Option<Version>),
    MarkBad(Version),
    Shadow(Option<Version>),
    Disable(bool),
    Remove(Option<Version>),
}

fn name() -> PackageName {
    "acme/demo".parse().unwrap()
}

fn versions() -> impl Strategy<Value = Version> {
    let text = prop::sample::select(vec![
        "0.9.0",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
        "1.1.0",
        "2.0.0-a",
        "2.0.0",
    ]);
    text.prop_map(|text| parse_version(text).unwrap())
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (versions(), any::<bool>()).prop_map(|(version, activate)| Step::Install { version, activate }),
        2 => versions().prop_map(Step::Promote),
        2 => prop::option::of(versions()).prop_map(Step::Rollback),
        2 => versions().prop_map(Step::MarkBad),
        2 => prop::option::of(versions()).prop_map(Step::Shadow),
        1 => any::<bool>().prop_map(Step::Disable),
        1 => prop::option::weighted(0.8, versions()).prop_map(Step::Remove),
    ]
}

fn mark() -> Mark {
    Mark::fitting("traps", Timestamp::from_seconds(1))
}

impl Step {
    fn apply(&self, state: &mut State) -> Result<(), StateError> {
        let name = name();
        match self {
            Self::Install { version, activate } => {
                let digest = Digest::of(version.to_string().as_bytes());
                state.install(&name, version, digest, *activate, Timestamp::from_seconds(1))
            }
            Self::Promote(version) => state.promote(&name, version),
            Self::Rollback(version) => state.rollback(&name, version.as_ref()).map(drop),
            Self::MarkBad(version) => state.mark_bad(&name, version, mark()).map(drop),
            Self::Shadow(version) => state.set_shadow(&name, version.as_ref().map(|version| (version, 0.5))),
            Self::Disable(on) => {
                state.set_disabled(&name, on.then(mark));
                Ok(())
            }
            Self::Remove(version) => state.remove(&name, version.as_ref()),
        }
    }

    /// Whether it may make an older version run.
    fn goes_back(&self) -> bool {
        matches!(self, Self::Rollback(_) | Self::MarkBad(_) | Self::Remove(None))
    }
}

fn holds(plugin: &PluginState) {
    let here = |version: &Option<VersionText>| {
        version
            .as_ref()
            .is_none_or(|version| plugin.versions.contains_key(version))
    };
    assert!(
        here(&plugin.current) && here(&plugin.previous) && here(&plugin.shadow.as_ref().map(|s| s.version.clone()))
    );
    assert!(plugin.previous.is_none() || plugin.previous != plugin.current);
    assert!(
        plugin
            .shadow
            .as_ref()
            .is_none_or(|shadow| Some(&shadow.version) != plugin.current.as_ref())
    );
    assert!(plugin.versions.keys().max() <= plugin.highest.as_ref());
    let bad = |version: &VersionText| plugin.versions[version].bad.is_some();
    assert!(
        !plugin.current.as_ref().is_some_and(bad),
        "what was marked bad does not run"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_history_lets_a_bad_version_run_or_an_old_one_come_back_by_installing(history in prop::collection::vec(steps(), 1..40)) {
        let mut state = State::default();
        for step in history {
            let mut next = state.clone();
            let before = state.plugins.get(&name()).cloned().unwrap_or_default();
            if step.apply(&mut next).is_err() {
                // Whoever applies a step to what is kept throws the rest away; here the same.
                continue;
            }
            let after = next.plugins.get(&name()).cloned().unwrap_or_default();
            holds(&after);
            prop_assert!(after.highest >= before.highest, "{step:?}");
            if !step.goes_back() && after.current != before.current {
                prop_assert!(after.current >= before.current, "{step:?} went back");
            }
            if let Step::Install { version, .. } = &step {
                prop_assert!(before.highest.is_none_or(|highest| *version >= highest.0));
            }
            let may_run = next.choose(&name(), None).is_ok();
            prop_assert_eq!(may_run, after.current.is_some() && after.disabled.is_none());
            let text = serde_json::to_string(&next).unwrap();
            prop_assert_eq!(serde_json::from_str::<State>(&text).unwrap(), next.clone());
            state = next;
        }
    }
}
