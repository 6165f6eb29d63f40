//! Parts of a cluster. In Envoy a route chooses one by the labels that it wants, here by its name: the names are ours, and the
//! selectors of Envoy's let it do the same.

use std::collections::{BTreeMap, BTreeSet};

use super::super::cx::Cx;
use super::super::generated::envoy::config::cluster::v3::cluster as pb;
use super::super::generated::outrigger::extensions::v1::cluster as ours;
use crate::model::{Labels, Name, SubsetFallback};

/// What there is of them, and who takes what is meant for one that is empty.
type Subsets = (BTreeMap<Name, Labels>, SubsetFallback);

pub(super) fn subsets(
    cx: &mut Cx,
    config: Option<pb::LbSubsetConfig>,
    named: BTreeMap<String, ours::Subset>,
) -> Option<Subsets> {
    let selectors = match config {
        Some(config) => cx.within("lb_subset_config", |cx| selectors(cx, config)),
        None => Some(Vec::new()),
    };
    let named = named.into_iter().map(|(name, subset)| named_subset(cx, &name, subset));
    let named: Option<BTreeMap<Name, Labels>> = named.collect();
    let (selectors, named) = (selectors?, named?);
    let by_keys: BTreeMap<_, _> = selectors.into_iter().collect();
    let mut fallback = None;
    for (name, Labels(labels)) in &named {
        let keys: BTreeSet<&str> = labels.keys().map(|key| &**key).collect();
        let found =
            by_keys.iter().find(|(selector, _)| selector.iter().map(|key| &**key).eq(keys.iter().copied()));
        let Some((_, found)) = found else {
            return cx.fail("lb_subset_config", format!("there is no selector for the labels of `{name}`"));
        };
        if fallback.is_some_and(|other| other != *found) {
            let problem = "selectors whose fallbacks differ are not supported";
            return cx.fail("lb_subset_config.subset_selectors", problem);
        }
        fallback = Some(*found);
    }
    Some((named, fallback.unwrap_or_default()))
}

/// The labels that are selected by, each time with who takes what nobody is there for. Without names only the part of
/// them that is about requests for no part has an effect.
fn selectors(cx: &mut Cx, config: pb::LbSubsetConfig) -> Option<Vec<(BTreeSet<String>, SubsetFallback)>> {
    use pb::lb_subset_config::LbSubsetFallbackPolicy as Whole;
    use pb::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy as Part;
    let pb::LbSubsetConfig { fallback_policy, subset_selectors } = config;
    let whole = Whole::try_from(fallback_policy).unwrap_or_default();
    // Without selectors there are no parts, and all of it has no effect.
    if whole != Whole::AnyEndpoint && !subset_selectors.is_empty() {
        let problem =
            format!("{} is not supported: requests that name no subset go anywhere", whole.as_str_name());
        return cx.fail("fallback_policy", problem);
    }
    cx.each("subset_selectors", subset_selectors, |cx, selector| {
        let pb::lb_subset_config::LbSubsetSelector { keys, fallback_policy } = selector;
        let policy = Part::try_from(fallback_policy).unwrap_or_default();
        let fallback = match policy {
            Part::NoFallback => SubsetFallback::None,
            Part::NotDefined | Part::AnyEndpoint => SubsetFallback::Any,
            Part::DefaultSubset | Part::KeysSubset => {
                return cx.fail("fallback_policy", format!("{} is not supported", policy.as_str_name()));
            }
        };
        Some((keys.into_iter().collect(), fallback))
    })
}

fn named_subset(cx: &mut Cx, name: &str, subset: ours::Subset) -> Option<(Name, Labels)> {
    let ours::Subset { labels } = subset;
    let field = format!("metadata.typed_filter_metadata[outrigger].subsets[{name}]");
    let Some(known) = Name::new(name).filter(|_| !name.contains('/')) else {
        return cx.fail(&field, "this is not the name of a subset");
    };
    if labels.is_empty() {
        return cx.fail(&field, "no label is named");
    }
    let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into()));
    Some((known, Labels(labels.collect())))
}
