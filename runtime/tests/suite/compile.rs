//! Components are compiled by another process inside limits, once, and what was compiled before is believed only with its seal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sluice_runtime::{Compiler, ComponentError, Host, HostOptions, LoadError, PluginConfig};
use wasm_encoder::{
    CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentInstanceSection, Function,
    FunctionSection, Module, ModuleSection, TypeSection, ValType,
};

use crate::common::*;

/// Says how often it was called. Compiles the first time and gives the same answer from then on.
struct Counted {
    folder: tempfile::TempDir,
}

impl Counted {
    fn new() -> Counted {
        Counted {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn compiler(&self) -> Compiler {
        let answer = self.folder.path().join("answer");
        let (log, answer) = (self.log().display().to_string(), answer.display());
        let script =
            format!("echo x >> {log}; [ -f {answer} ] || {COMPILER} \"$@\" | cat > {answer}; exec cat {answer}");
        Compiler::new("/bin/sh", ["-c", &script, "sh"])
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("calls")
    }

    fn calls(&self) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().lines().count()
    }
}

fn cached(compiler: Compiler, folder: &Path) -> Host {
    let cache = Some(folder.to_owned());
    Host::new(HostOptions { compiler, cache }).unwrap()
}

fn sampler() -> PluginConfig {
    golden_config("sample", json!({"rate": 0.5}))
}

fn works(host: &Host) {
    let plugin = host.load(sampler()).unwrap();
    let outcome = chain([plugin]).run(logs(&["x"; 20]), CALL).unwrap();
    assert!(outcome.batch.num_rows() > 0);
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "image"))
        .collect()
}

/// The components that a chain needs are compiled once, however many plugins are made of one at the same time.
#[test]
fn several_loads_at_once_compile_once() {
    let counted = Counted::new();
    let compiler = counted.compiler();
    let host = Host::new(HostOptions { compiler, cache: None }).unwrap();
    let plugins: Vec<_> = std::thread::scope(|scope| {
        let loading: Vec<_> = (0..4).map(|_| scope.spawn(|| host.load(sampler()).unwrap())).collect();
        loading.into_iter().map(|plugin| plugin.join().unwrap()).collect()
    });
    assert_eq!((plugins.len(), counted.calls()), (4, 1));
    drop(plugins);
    // Without a cache nothing is kept beyond the last plugin.
    works(&host);
    assert_eq!(counted.calls(), 2);
}

/// P10: an image is run as it is, so a byte that nobody sealed is never run. Whatever somebody did to the cache, the plugin
/// works, and the image is replaced.
#[test]
fn p10_an_image_is_loaded_only_as_it_was_sealed() {
    let counted = Counted::new();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("images");
    works(&cached(counted.compiler(), &folder));
    assert_eq!(counted.calls(), 1);
    let [image] = images(&folder).try_into().unwrap();
    let good = std::fs::read(&image).unwrap();

    // Another process with the same cache needs no compiler at all.
    works(&cached(Compiler::new("/nowhere", [""; 0]), &folder));

    let damage = |what: &str, change: &dyn Fn()| {
        let before = counted.calls();
        change();
        works(&cached(counted.compiler(), &folder));
        assert_eq!(counted.calls(), before + 1, "{what}: compiled anew");
        works(&cached(Compiler::new("/nowhere", [""; 0]), &folder));
        assert!(std::fs::read(&image).unwrap().len() > 1000, "{what}: replaced");
    };
    let write = |bytes: &[u8]| std::fs::write(&image, bytes).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    damage("a bit of the machine code", &|| write(&flipped(good.len() / 2)));
    damage("a bit of the header", &|| write(&flipped(60)));
    damage("cut off", &|| write(&good[..good.len() - 1]));
    damage("empty", &|| write(&[]));
    damage("something added", &|| write(&[&good[..], b"x"].concat()));
    damage("another key", &|| std::fs::remove_file(folder.join("key")).unwrap());
    damage("a key that others can read", &|| {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.join("key"), open).unwrap();
    });
    damage("removed", &|| std::fs::remove_file(&image).unwrap());
    let other = {
        let host = cached(options().compiler, &folder);
        host.load(golden_config("mask", json!({}))).unwrap();
        images(&folder).into_iter().find(|path| *path != image).unwrap()
    };
    damage("the image of something else", &|| {
        std::fs::copy(&other, &image).unwrap();
    });
}

/// A cache that cannot be used costs time and nothing else.
#[test]
fn a_host_does_without_a_cache_that_cannot_be_used() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let host = cached(options().compiler, file.path());
    let plugin = host.load(config("faulty", json!({"mode": "ok"}))).unwrap();
    assert_eq!(plugin.component_name(), "faulty");
}

/// Two processes that start at once with an empty cache.
#[test]
fn hosts_that_share_a_cache_do_not_hurt_each_other() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| works(&cached(options().compiler, folder.path())));
        }
    });
    works(&cached(Compiler::new("/nowhere", [""; 0]), folder.path()));
    assert_eq!(images(folder.path()).len(), 1);
}

fn refused(compiler: Compiler, component: Vec<u8>) -> ComponentError {
    let host = Host::new(HostOptions { compiler, cache: None }).unwrap();
    let mut config = sampler();
    config.component = component;
    match host.load(config).unwrap_err() {
        LoadError::Component { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// A component that exports what a plugin exports, and one function so large that compiling it is the attack.
fn monster() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I64, ValType::I64], [ValType::I64]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    functions.function(0);
    let mut function = Function::new([(50, ValType::I64)]);
    let mut body = function.instructions();
    // Calls are what a compiler remembers most about.
    for step in 0..400_000u32 {
        body.local_get(step * 7 % 52).local_get(step * 13 % 52);
        body.call(0).local_set(step * 31 % 52);
    }
    body.local_get(0).end();
    code.function(&function);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    let mut instances = ComponentInstanceSection::new();
    let nothing: [(&str, ComponentExportKind, u32); 0] = [];
    instances.export_items(nothing);
    let mut exports = ComponentExportSection::new();
    exports.export("sluice:plugin/guest@1.0.0", ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component
        .section(&ModuleSection(&module))
        .section(&instances)
        .section(&exports);
    component.finish()
}

/// P10: a component made to exhaust the compiler ends the compiler, and the plugins that run notice nothing.
#[test]
fn p10_a_component_that_makes_the_compiler_slow_or_large_is_refused() {
    let monster = monster();
    let serving = chain([golden("sample", json!({"rate": 1.0}))]);
    let serve = || assert_eq!(serving.run(logs(&["x"; 10]), CALL).unwrap().batch.num_rows(), 10);
    let mut slow = options().compiler;
    slow.time = Duration::from_secs(1);
    let error = refused(slow, monster.clone());
    assert!(matches!(error, ComponentError::TooSlow(_)), "{error}");
    assert_eq!(error.to_string(), "takes more than 1 s of processor time to compile");
    serve();
    let mut large = options().compiler;
    large.memory_bytes = 192 << 20;
    works(&cached(large.clone(), tempfile::tempdir().unwrap().path()));
    let error = refused(large, monster);
    assert!(matches!(error, ComponentError::CompilerMemory(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "takes more than 201326592 bytes of memory to compile"
    );
    serve();
}

/// What is started as compiler and is none is told apart from a component that cannot be compiled.
#[test]
fn a_program_that_is_no_compiler_is_named() {
    let check = |compiler: Compiler, expected: &str| {
        let error = refused(compiler, golden_component("sample"));
        let text = error.to_string();
        assert!(
            matches!(error, ComponentError::Compiler(_)) && text.contains(expected),
            "{text}"
        );
    };
    check(
        Compiler::new("/nowhere/sluice", [""; 0]),
        "/nowhere/sluice: No such file",
    );
    check(
        Compiler::new("/bin/echo", [""; 0]),
        "/bin/echo does not answer as a compiler of plugins",
    );
    check(Compiler::new("/bin/sh", ["-c", "echo why >&2; exit 7"]), "why");
    check(Compiler::new("/bin/sh", ["-c", "kill -SEGV $$"]), "ended by signal 11");
    // A test program answers arguments that it does not know by its usage, not with a compiler of its own without end.
    let this = std::env::current_exe().unwrap();
    check(Compiler::new(this, ["compile-plugin"]), "Unrecognized option");
}

/// One that never ends is ended, with everything that it holds open.
#[test]
fn p10_a_compiler_that_hangs_is_ended() {
    let mut compiler = Compiler::new("/bin/sh", ["-c", "exec tail -f /dev/null"]);
    compiler.time = Duration::from_millis(50);
    let error = refused(compiler, golden_component("sample"));
    assert!(matches!(error, ComponentError::Starved(_)), "{error}");
}

/// An answer without end fills no memory.
#[test]
fn p10_an_image_without_end_is_cut() {
    let script = "printf 'sluiceim\\377\\377\\377\\377\\377\\377\\377\\177'; exec cat /dev/zero";
    let error = refused(Compiler::new("/bin/sh", ["-c", script]), golden_component("sample"));
    assert!(matches!(error, ComponentError::TooMuchCode(_)), "{error}");
    let script = "printf 'sluiceim\\5\\0\\0\\0\\0\\0\\0\\0'; exec cat /dev/zero";
    let error = refused(Compiler::new("/bin/sh", ["-c", script]), golden_component("sample"));
    assert!(matches!(error, ComponentError::Compiler(_)), "{error}");
}
