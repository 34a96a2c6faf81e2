use super::*;
use crate::message::Location;

fn name(text: &str) -> PeerName {
    PeerName::try_from(text.to_owned()).unwrap()
}

/// The sites of a new store.
fn sites() -> Sites {
    let hop = Location { pod: "p".into(), cluster: "c".into() }.hop();
    Sites::new(crate::store::Store::in_memory().1.sites, Limits::for_hop(&hop))
}

fn resolved(sites: &Sites, to: Option<&str>) -> Result<Vec<Option<String>>, String> {
    let target = Target::parse(to).map_err(|error| error.to_string())?;
    let found = sites.resolve(&target).map_err(|error| error.to_string())?;
    Ok(found.iter().map(|site| site.name().map(|name| name.as_str().to_owned())).collect())
}

#[test]
fn the_first_peer_gets_the_outbox_that_was_nobodys_and_the_others_one_of_their_own() {
    let sites = sites();
    let nobody = sites.connect(None).unwrap();
    let east = sites.connect(Some(&name("east"))).unwrap();
    assert!(Arc::ptr_eq(&nobody, &east) && Arc::ptr_eq(&sites.first(), &east));
    let west = sites.connect(Some(&name("west"))).unwrap();
    assert!(!Arc::ptr_eq(&east, &west));
    assert_ne!(east.outbox.sender(), west.outbox.sender());
    assert!(Arc::ptr_eq(&west, &sites.connect(Some(&name("west"))).unwrap()));
    let error = sites.connect(None).err().unwrap().to_string();
    assert!(error.contains("the tunnel names no peer"), "{error}");
}

#[test]
fn a_trigger_without_a_site_is_for_the_only_one_and_asks_for_a_name_where_there_are_several() {
    let sites = sites();
    assert_eq!(resolved(&sites, None).unwrap(), [None], "whoever comes first");
    assert!(resolved(&sites, Some("east")).unwrap_err().contains("known are: none by a name"));
    sites.connect(Some(&name("east"))).unwrap();
    let east = Some("east".to_owned());
    assert_eq!(resolved(&sites, None).unwrap().first(), Some(&east));
    sites.connect(Some(&name("a/west"))).unwrap();
    let west = Some("a/west".to_owned());
    let error = resolved(&sites, None).unwrap_err();
    assert!(error.contains("several sites are known here: east, a/west;") && error.contains("?to=NAME"), "{error}");
    assert_eq!(resolved(&sites, Some("a/west")).unwrap().first(), Some(&west));
    assert_eq!(resolved(&sites, Some("a/west,east,a/west")).unwrap(), [west.clone(), east.clone()]);
    assert_eq!(resolved(&sites, Some("*")).unwrap(), [east, west]);
    let error = resolved(&sites, Some("east,north")).unwrap_err();
    assert_eq!(error, "there is no site \"north\"; known are: east, a/west");
    for wrong in ["", ",", "east,", "east, west", "*,east", "east west"] {
        assert!(resolved(&sites, Some(wrong)).unwrap_err().contains("cannot be used"), "{wrong:?}");
    }
}

#[test]
fn an_error_lists_some_names_and_says_how_many_more_there_are() {
    let sites = sites();
    for n in 0..MAX_SITES {
        sites.connect(Some(&name(&format!("site-{n}")))).unwrap();
    }
    let error = resolved(&sites, None).unwrap_err();
    assert!(error.contains("site-19 and 980 more"), "{error}");
    let error = sites.connect(Some(&name("one-more"))).err().unwrap().to_string();
    assert!(error.contains("1000 sites are known here already"), "{error}");
}
