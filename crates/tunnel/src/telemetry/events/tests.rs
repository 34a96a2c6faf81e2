use super::*;

fn events() -> Arc<Events> {
    Arc::new(Events::new(Instance([7; 16])))
}

fn reachable(peer: impl ToString) -> Event {
    Event::PeerReachable { peer: peer.to_string() }
}

fn made(peer: impl ToString) -> Event {
    Event::LinkMade { peer: peer.to_string(), role: "dialler" }
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.told.iter().map(|told| told.number).collect()
}

#[tokio::test]
async fn a_reader_gets_what_is_kept_and_then_what_comes() {
    let events = events();
    events.tell(reachable("a"));
    events.tell(made("a"));
    let mut reader = events.follow(None);
    assert_eq!(numbers(&reader.next().await), [1, 2]);
    let more = tokio::spawn(async move { reader.next().await });
    events.tell(reachable("b"));
    let more = more.await.unwrap();
    assert_eq!((numbers(&more), more.lost), (vec![3], 0));
}

#[tokio::test]
async fn a_reader_goes_on_behind_the_event_whose_id_it_has() {
    let events = events();
    (0..5).for_each(|peer| events.tell(reachable(peer)));
    let id = events.id(&events.follow(None).next().await.told[2]);
    assert_eq!(numbers(&events.follow(Some(&id)).next().await), [4, 5]);
    for of_another in ["", "3", "00000000000000000000000000000000-3", &id.replace("-3", "-9")] {
        assert_eq!(events.follow(Some(of_another)).next().await.told.len(), 5, "{of_another}");
    }
}

#[tokio::test]
async fn a_slow_reader_holds_nothing_and_learns_how_much_it_has_missed() {
    let events = events();
    let mut reader = events.follow_new();
    (0..1500).for_each(|peer| events.tell(reachable(peer)));
    let batch = reader.next().await;
    assert_eq!((batch.lost, batch.told.len(), batch.told[0].number), (500, 1000, 501));
    events.tell(made("a"));
    assert_eq!(reader.next().await.lost, 0);
}

#[tokio::test]
async fn what_happens_all_the_time_pushes_nothing_out_that_matters() {
    let events = events();
    events.tell(reachable("a"));
    (0..5000).for_each(|peer| events.tell(made(peer)));
    let batch = events.follow(None).next().await;
    assert_eq!(batch.told.len(), 1001);
    assert_eq!(batch.told[0].number, 1);
}

#[test]
fn every_kind_is_documented_and_every_documented_kind_exists() {
    let manual = include_str!("../../../../../docs/observability.md");
    let snake = |kind: &&str| {
        let mut snake = String::new();
        for c in kind.chars() {
            if c.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        snake
    };
    let mut kinds: Vec<_> = Event::KINDS.iter().map(snake).chain(["hello".to_owned(), "lost".to_owned()]).collect();
    let (_, table) = manual.split_once("| kind |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut documented: Vec<_> = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    kinds.sort();
    documented.sort_unstable();
    assert_eq!(documented, kinds);
}
