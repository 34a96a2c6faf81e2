//! A tunnel beside an application of somebody else's: into the pod template of a manifest, and out of it again.
//!
//! The text is edited by the line: what is not Ferry's stays as it stands, comments, order and unknown fields included.
//! What was put in is known by an annotation of the pod, so that it can be renewed and taken out.

mod check;
mod edit;
mod manifest;
mod own;

use ferry_config::{Problem, Report, Tunnel, ValueError};

use edit::Edits;
use manifest::{Manifest, Workload};
use own::Parts;

pub use own::{config_map_name, secret_name};

/// Where a template has its annotations.
const ANNOTATIONS: [&str; 2] = ["metadata", "annotations"];

/// What a pod gets.
#[derive(Clone, Copy, Debug)]
pub struct Injection<'a> {
    /// The tunnel.
    pub tunnel: &'a Tunnel,
    /// Where it was read from, for messages.
    pub config: &'a str,
    /// The image that has ferry in it.
    pub image: &'a str,
    /// Whether the Secret with the identity is written, too.
    pub with_secret: bool,
}

/// A manifest with a tunnel.
#[derive(Debug)]
pub struct Injected {
    /// The whole text.
    pub text: String,
    /// The workload that has the tunnel: its kind and its name.
    pub workload: (String, String),
    /// What looks wrong but can be worked with.
    pub warnings: Vec<String>,
}

/// Puts a tunnel and its keeper into the pod of a workload, and its configuration behind the last document. If they are
/// there already, they are put in anew. `source` is what the text is called in messages; `named` says which workload it is,
/// as `NAME` or `KIND/NAME`, and is needed where there are several.
///
/// # Errors
///
/// Every reason why that is not possible.
pub fn inject(source: &str, text: &str, named: Option<&str>, injection: &Injection<'_>) -> Result<Injected, Report> {
    let report = |problems| Report::new(source, problems);
    let parts = Parts::new(injection)?;
    let manifest = Manifest::parse(text).map_err(report)?;
    let kept = take_out(&manifest, &manifest.pick(named).map_err(report)?).map_err(report)?;
    let kept = without_empty(kept, named).map_err(report)?;
    let manifest = Manifest::parse(&kept).map_err(report)?;
    let workload = manifest.pick(named).map_err(report)?;
    let problems = check::clashes(&manifest, &workload, &parts);
    if !problems.is_empty() {
        return Err(report(problems));
    }
    let text = put_in(&manifest, &workload, &parts).map_err(report)?;
    // Lines were put into a text that somebody else wrote: what comes out must be what is meant.
    let is_reversible = remove(source, &text, named).is_ok_and(|(without, _)| without == with_last_newline(&kept));
    if !is_reversible {
        let hint = "write it as `kubectl get` or `kubectl create --dry-run=client -o yaml` does";
        return Err(report(vec![workload.problem(ValueError::new("this layout of YAML cannot be edited", hint))]));
    }
    let warnings = check::warnings(&workload, injection.tunnel);
    Ok(Injected { text, workload: (workload.kind.to_owned(), workload.name.to_owned()), warnings })
}

/// Takes out what [`inject`] put in: of the workload that is named, or of all. With the text, how many had a tunnel.
///
/// # Errors
///
/// If the text cannot be read, or there is no such workload.
pub fn remove(source: &str, text: &str, named: Option<&str>) -> Result<(String, usize), Report> {
    let report = |problems| Report::new(source, problems);
    let (mut text, mut count) = (text.to_owned(), 0);
    loop {
        let manifest = Manifest::parse(&text).map_err(report)?;
        let mut workloads = match named {
            Some(_) => vec![manifest.pick(named).map_err(report)?],
            None => manifest.workloads(),
        };
        workloads.retain(|workload| workload.mark().is_some());
        let Some(workload) = workloads.first() else { return Ok((text, count)) };
        let without = take_out(&manifest, workload).map_err(report)?;
        count += 1;
        text = without;
    }
}

/// The text without the keys that lines would be put under and that have nothing: `volumes: []`.
fn without_empty(mut text: String, named: Option<&str>) -> Result<String, Vec<Problem>> {
    loop {
        let manifest = Manifest::parse(&text)?;
        let workload = manifest.pick(named)?;
        let mut edits = Edits::default();
        let lists = ["initContainers", "volumes"].map(|list| edits.drop_empty(&workload.spec, &[list]));
        let maps = [&["metadata"][..], &ANNOTATIONS].map(|path| edits.drop_empty(&workload.template, path));
        if !lists.into_iter().chain(maps).any(|is_dropped| is_dropped) {
            return Ok(text);
        }
        text = edits.apply(&text);
    }
}

fn put_in(manifest: &Manifest, workload: &Workload<'_>, parts: &Parts) -> Result<String, Vec<Problem>> {
    let mut edits = Edits::default();
    edits.set(&workload.template, &ANNOTATIONS, own::ANNOTATION, &workload.to_string())?;
    edits.add_items(&workload.spec, "initContainers", &parts.containers())?;
    edits.add_items(&workload.spec, "volumes", &parts.volumes(workload.name))?;
    let mut text = with_last_newline(&edits.apply(manifest.text()));
    for document in parts.documents(workload) {
        text += "---\n";
        text += &document;
    }
    Ok(text)
}

/// The text without what is Ferry's in this workload; as it is, if nothing is.
fn take_out(manifest: &Manifest, workload: &Workload<'_>) -> Result<String, Vec<Problem>> {
    let Some(mark) = workload.mark() else { return Ok(manifest.text().to_owned()) };
    let mut edits = Edits::default();
    edits.unset(&workload.template, &ANNOTATIONS, own::ANNOTATION)?;
    edits.remove_items(&workload.spec, "initContainers", &own::CONTAINERS)?;
    edits.remove_items(&workload.spec, "volumes", &own::VOLUME_NAMES)?;
    for document in manifest.documents() {
        if document.annotation(own::ANNOTATION) == Some(mark) && document.is_configuration() {
            edits.remove(document.lines.clone());
        }
    }
    Ok(edits.apply(manifest.text()))
}

fn with_last_newline(text: &str) -> String {
    match text.ends_with('\n') || text.is_empty() {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}
