//! What is no plugin is refused at load, with the reason (P10).

use proptest::prelude::*;
use serde_json::json;
use sluice_runtime::{ComponentError, ContractVersion, LoadError, inspect};
use wasm_encoder::{
    Component, ComponentImportSection, ComponentTypeRef, ComponentTypeSection, ComponentValType, InstanceType,
};

use crate::common::*;

fn importing(name: &str) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

fn load_bytes(component: Vec<u8>) -> LoadError {
    let mut config = golden_config("sample", json!({"rate": 0.5}));
    config.component = component;
    host().load(config).unwrap_err()
}

#[test]
fn p10_imports_of_anything_but_ours_are_refused() {
    for name in [
        "wasi:filesystem/types@0.2.0",
        "wasi:sockets/tcp@0.2.0",
        "wasi:clocks/wall-clock@0.2.0",
        "wasi:cli/environment@0.2.6",
        "other:plugin/log@0.1.0",
        "sluice:pluginx/log@0.1.0",
        "log",
    ] {
        let error = load_bytes(importing(name));
        let text = error.to_string();
        assert!(
            matches!(&error, LoadError::Component { source: ComponentError::Forbidden(found), .. } if found == name),
            "{text}"
        );
        assert!(text.contains(name) && text.contains("sluice:plugin/"), "{text}");
    }
    let unknown = load_bytes(importing("sluice:plugin/telepathy@1.0.0"));
    assert!(
        matches!(
            unknown,
            LoadError::Component {
                source: ComponentError::Missing(_),
                ..
            }
        ),
        "{unknown}"
    );
}

/// What was built for a later contract is told from what is broken.
#[test]
fn a_component_that_needs_a_newer_contract_says_so() {
    for (name, expected) in [
        (
            "sluice:plugin/log@1.7.0",
            "needs contract 1.7; this host has up to 1.0: update the node",
        ),
        (
            "sluice:plugin/log@0.3.0",
            "needs contract 0.3, which was never released",
        ),
        (
            "sluice:plugin/telepathy@2.0.0",
            "needs contract 2.0; this host has up to 1.0: update the node",
        ),
    ] {
        let error = load_bytes(importing(name)).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Publishing refuses what loading refuses, without compiling anything.
#[test]
fn p10_inspect_refuses_what_no_host_would_load() {
    let forbidden = inspect(&importing("wasi:filesystem/types@0.2.0"));
    assert!(matches!(forbidden, Err(ComponentError::Forbidden(_))));
    assert!(matches!(inspect(b"\0asm\x01\0\0\0"), Err(ComponentError::Malformed(_))));
    let old = inspect(&golden_component("sample")).unwrap();
    assert_eq!(old.contract, ContractVersion::V0_1);
    // Whole on the outside, broken within.
    let mut bytes = golden_component("sample");
    let (quarter, half) = (bytes.len() / 4, bytes.len() / 2);
    bytes[quarter..half].fill(0xff);
    assert!(matches!(inspect(&bytes), Err(ComponentError::Malformed(_))));
}

#[test]
fn a_component_of_another_world_is_refused() {
    let empty = Component::new().finish();
    assert!(matches!(
        load_bytes(empty),
        LoadError::Component {
            source: ComponentError::World(_),
            ..
        }
    ));
    // A core module is no component.
    let module = load_bytes(b"\0asm\x01\0\0\0".to_vec());
    assert!(matches!(
        module,
        LoadError::Component {
            source: ComponentError::Malformed(_),
            ..
        }
    ));
    let mut types = ComponentTypeSection::new();
    types
        .defined_type()
        .list(ComponentValType::Primitive(wasm_encoder::PrimitiveValType::U8));
    let mut component = Component::new();
    component.section(&types);
    assert!(matches!(load_bytes(component.finish()), LoadError::Component { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damaged components are refused or, where the damage does not matter, loaded; the host lives on.
    #[test]
    fn p10_damaged_components_never_panic(cut in 0.0..1.0f64, flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
        // The beginning holds what decides; compiling the long tail each time would only take time.
        let mut bytes = golden_component("sample");
        let length = (4096.0 * cut) as usize;
        bytes.truncate(length);
        for (at, flip) in flips {
            if let Some(byte) = bytes.get_mut(at as usize % length.max(1)) {
                *byte ^= flip;
            }
        }
        load_bytes(bytes);
    }

    #[test]
    fn p10_random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        if header {
            bytes.splice(0..0, *b"\0asm\x0d\0\x01\0");
        }
        // An empty component is well-formed; it is refused for its missing exports.
        load_bytes(bytes);
    }
}
