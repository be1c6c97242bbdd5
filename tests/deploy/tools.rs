//! Runs kubectl, helm, promtool and kubernetes-validate, and parses their output.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Runs a program in the repository's root with `input` on its standard input.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(repository(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "start {program}: {error}; run `scripts/test`, which fetches what is missing, or install it"
            )
        });
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// The standard output of a program. The test fails with the program's output if the program fails.
pub fn output(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let Output {
        status,
        stdout,
        stderr,
    } = run(program, arguments, input);
    assert!(
        status.success(),
        "{program} {arguments:?}: {status}: {}{}",
        String::from_utf8_lossy(&stderr),
        String::from_utf8_lossy(&stdout)
    );
    stdout
}

pub fn kubectl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    output("kubectl", arguments, input)
}

/// Parses the Kubernetes objects of a YAML text, of any kind.
pub fn objects(yaml: &[u8]) -> Vec<Value> {
    // Removing an annotation that does not exist changes nothing, needs no cluster, and can print JSON. So the
    // tests need no YAML parser. It leaves an empty `annotations` behind.
    let json = kubectl(
        &[
            "annotate",
            "--local",
            "-f",
            "-",
            "-o",
            "json",
            "no-such-annotation-",
        ],
        yaml,
    );
    let mut objects: Vec<Value> = serde_json::Deserializer::from_slice(&json)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    for object in &mut objects {
        let metadata = object["metadata"].as_object_mut().unwrap();
        if metadata.get("annotations") == Some(&json!({})) {
            metadata.remove("annotations");
        }
    }
    objects
}

/// Parses a YAML file that is not a Kubernetes object.
pub fn yaml(path: &str) -> Value {
    let mut text = "apiVersion: v1\nkind: Text\nmetadata:\n  name: text\nspec:\n".to_owned();
    for line in read(path).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let mut objects = objects(text.as_bytes());
    assert_eq!(objects.len(), 1, "{path}");
    objects[0]["spec"].take()
}

/// The only object of this kind and name.
pub fn the<'a>(kind: &str, name: &str, objects: &'a [Value]) -> &'a Value {
    let found: Vec<&Value> = objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "exactly one {kind} {name} in {objects:#?}");
    found[0]
}

/// The only element of a list with this name.
pub fn named<'a>(name: &str, list: &'a Value) -> &'a Value {
    let found: Vec<&Value> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "exactly one {name:?} in {list:#}");
    found[0]
}

/// The objects as `Kind/name`, sorted.
pub fn names(objects: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = objects
        .iter()
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
        })
        .collect();
    names.sort();
    names
}
