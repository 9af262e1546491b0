//! The model card: what the model is, what it was measured on, and what it must not be used for.

use super::CKA;
use super::folder::{CONFIG, Config, MODEL, ONNX, PREPROCESSOR};
use crate::data::Dataset;
use crate::metrics::Classification;
use crate::onnx::{INPUT, OUTPUT};
use pomona_api::trainer::PublishWork;
use pomona_domain::dataset::Split;
use pomona_domain::spec::{FORGETTING, Head};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The card as Markdown.
pub fn render(
    work: &PublishWork,
    config: &Config,
    dataset: &Dataset,
    metrics: &BTreeMap<String, f64>,
    report: &Classification,
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = header(&mut text, work, config)
        .and_then(|()| figures(&mut text, work, dataset, metrics))
        .and_then(|()| classes(&mut text, dataset, report))
        .and_then(|()| loading(&mut text, config))
        .and_then(|()| origin(&mut text, work));
    text
}

fn header(text: &mut String, work: &PublishWork, config: &Config) -> std::fmt::Result {
    let head = match &config.head {
        Head::Linear => "a linear head".to_owned(),
        Head::Mlp { hidden, .. } => format!("a head with one hidden layer of {hidden} units"),
    };
    let frozen = config.frozen_through.as_ref().map_or_else(
        || "every block was trained".to_owned(),
        |name| format!("blocks from the input through `{name}` were frozen"),
    );
    writeln!(
        text,
        "---\nlibrary_name: pomona\npipeline_tag: image-classification\nbase_model: {}\n---\n\n\
         # {}\n\n\
         An image classifier: `{}` with {head}, fine-tuned by Pomona; {frozen}. It tells {} classes \
         apart.\n",
        config.backbone.name, work.model, config.architecture, config.num_labels
    )
}

fn figures(
    text: &mut String,
    work: &PublishWork,
    dataset: &Dataset,
    metrics: &BTreeMap<String, f64>,
) -> std::fmt::Result {
    let samples = dataset.len(Split::Test);
    writeln!(text, "## Figures\n")?;
    if let (Some(at), Some(low), Some(high)) = (
        metrics.get("test/accuracy"),
        metrics.get("test/accuracy_low"),
        metrics.get("test/accuracy_high"),
    ) {
        writeln!(
            text,
            "Test accuracy {:.1} % (95 % interval {:.1} to {:.1} %, Wilson) on {samples} images that \
             neither training nor search has seen. Measured on the files of this folder, from pixels.\n",
            100.0 * at,
            100.0 * low,
            100.0 * high
        )?;
    }
    if let Some(nats) = metrics.get(FORGETTING) {
        let what = "Of its source task it";
        if *nats == 0.0 {
            writeln!(
                text,
                "{what} has forgotten nothing: its trunk is the source's.\n"
            )?;
        } else {
            writeln!(
                text,
                "{what} has forgotten {nats:.3} nats (`{FORGETTING}`): so far do the answers of \
                 the source head on this trunk differ from the source's own, about pictures of the \
                 test split, 0 being not at all. How alike a block's features still are says its \
                 `{CKA}` below (linear CKA, 1 being alike).\n"
            )?;
        }
    }
    writeln!(text, "| metric | value |\n| --- | --- |")?;
    for (name, value) in metrics.iter().chain(&work.validation) {
        writeln!(text, "| {} | {value:.4} |", cell(name))?;
    }
    let chose = if work.validation.contains_key("cv/accuracy") {
        "figures of cross-validation (`cv/`)"
    } else {
        "validation figures"
    };
    writeln!(
        text,
        "\nThe {chose} chose this checkpoint among others and are therefore too kind.\n"
    )
}

/// A name as a cell of a Markdown table.
fn cell(name: &str) -> String {
    name.replace('\\', "\\\\").replace('|', "\\|")
}

fn classes(text: &mut String, dataset: &Dataset, report: &Classification) -> std::fmt::Result {
    writeln!(
        text,
        "## Classes\n\n| class | training images | test images | test recall |\n| --- | --- | --- | --- |"
    )?;
    let count = |split, class: usize| {
        dataset
            .labels(split)
            .iter()
            .filter(|&&label| label as usize == class)
            .count()
    };
    for (class, name) in dataset.classes().iter().enumerate() {
        let (train, test) = (count(Split::Train, class), count(Split::Test, class));
        let recall = report.recall.get(class).copied().unwrap_or_default();
        let name = cell(name);
        writeln!(text, "| {name} | {train} | {test} | {recall:.3} |")?;
    }
    writeln!(text)
}

/// Each way in, and what it wants to be fed.
fn loading(text: &mut String, config: &Config) -> std::fmt::Result {
    let side = config.image_size;
    writeln!(
        text,
        "## Loading\n\n\
         `pomona predict` decodes pictures itself. Everything else is fed `{INPUT}`: 32-bit floats \
         [N, 3, {side}, {side}], RGB pictures made square and resized, divided by 255, less \
         `image_mean`, divided by `image_std`, as `{PREPROCESSOR}` says. The answer is `{OUTPUT}` \
         [N, {}]; a softmax makes probabilities of it. Classes by number are `id2label` of \
         `{CONFIG}`, and the metadata `{}` of the ONNX model.\n\n\
         ```python\n\
         import mlflow, onnxruntime, safetensors.numpy\n\n\
         session = onnxruntime.InferenceSession(\"{ONNX}\")\n\
         (logits,) = session.run([\"{OUTPUT}\"], {{\"{INPUT}\": x}})\n\n\
         model = mlflow.pyfunc.load_model(\".\")  # or mlflow.onnx.load_model: the graph itself\n\
         logits = model.predict({{\"{INPUT}\": x}})[\"{OUTPUT}\"]\n\n\
         tensors = safetensors.numpy.load_file(\"{MODEL}\")  # by their published names\n\
         ```\n",
        config.num_labels,
        crate::onnx::LABELS
    )
}

fn origin(text: &mut String, work: &PublishWork) -> std::fmt::Result {
    let from = &work.lineage;
    writeln!(
        text,
        "## Use\n\n\
         For pictures like those it was trained on. It always answers one of its classes, also for \
         a picture that shows none of them.\n\n\
         ## Origin\n\n\
         | what | which |\n| --- | --- |\n\
         | experiment | `{}` |\n| trial | `{}`, step {} |\n| seed | {} |\n| data set | `{}` |\n\
         | backbone | `{}`, `{}` |\n| checkpoint | `{}` |\n| code | Pomona {} |\n\n\
         The weights come from the backbone's and are under its licence. `lineage.json` has the same \
         as an in-toto statement.",
        from.experiment,
        from.trial,
        from.step,
        from.seed,
        from.dataset,
        work.backbone.name,
        from.backbone,
        from.checkpoint,
        from.code
    )
}
