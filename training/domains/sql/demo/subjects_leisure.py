"""Subjects of the demo about leisure, culture and travel."""

from __future__ import annotations

from training.domains.sql.demo.schemas import Category, Date, Key, Label, Names, Number, Reference, Subject, Table

PERSON = Names("person")

LIBRARY = Subject("library", (
    Table("authors", "author", 24, (
        Key("author_id"), Label("name", PERSON),
        Category("country", ("France", "Chile", "India", "Poland", "Kenya"), "from {v}"),
        Number("birth_year", 1890, 1995, more="born after {v}", less="born before {v}", most="youngest",
               least="oldest", ask="In which year was {x} born?"),
    ), person=True),
    Table("books", "book", 70, (
        Key("book_id"), Label("title", Names("pair", (
            "The Silent", "A Distant", "The Last", "My Secret", "The Broken", "An Empty", "The Crooked", "A Winter"),
            ("River", "Garden", "Mirror", "Letter", "Island", "Clock", "Window", "Orchard", "Song"))),
        Reference("author_id", "authors", "written by {x}", "wrote {y}"),
        Category("genre", ("crime", "romance", "history", "fantasy"), "in the {v} genre"),
        Number("pages", 80, 940, noun="number of pages", more="longer than {v} pages", less="shorter than {v} pages",
               most="longest", least="shortest", ask="How long is {x}?", total=True),
    )),
    Table("members", "member", 40, (
        Key("member_id"), Label("name", PERSON), Date("joined_on", (2015, 2024), "who joined", "join date"),
    ), person=True),
    Table("loans", "loan", 150, (
        Key("loan_id"), Reference("book_id", "books", "of {x}", "had {y}"),
        Reference("member_id", "members", "made by {x}", "made {y}"),
        Date("lent_on", (2022, 2024), "made", "lending date"),
    )),
))  # fmt: skip

AIRLINE = Subject("airline", (
    Table("airlines", "airline", 20, (
        Key("airline_id"), Label("name", Names("pair", ("Nordic", "Iberian", "Alpine", "Coral", "Polar"),
                                               ("Air", "Wings", "Jet", "Sky"))),
        Category("country", ("Finland", "Spain", "Austria", "Brazil"), "from {v}"),
        Number("fleet_size", 4, 220, total=True),
    )),
    Table("airports", "airport", 24, (
        Key("airport_id"), Label("name", Names("list", (
            "Oslo Gardermoen", "Madrid Barajas", "Milan Malpensa", "Paris Orly", "London City", "Rome Ciampino",
            "Berlin Brandenburg", "Stockholm Arlanda", "Dublin Main", "Geneva Cointrin", "Athens Central",
            "Krakow Balice", "Lisbon Portela", "Naples Capodichino", "Tokyo Haneda", "Chicago Midway",
            "Dallas Love Field", "Boston Logan", "Denver Main", "Lima Chavez", "Cairo East", "Nairobi Wilson",
            "Mumbai Juhu", "Perth Main"))),
        Number("runways", 1, 6, noun="number of runways"),
        Number("elevation", 2, 1_700, unit=" metres", more="higher than {v} metres",
                                        less="lower than {v} metres", most="highest", least="lowest",
                                        ask="How high does {x} lie?"),
    )),
    Table("flights", "flight", 140, (
        Key("flight_id"), Label("flight_number", Names("code", ("NA", "IB", "AL"))),
        Reference("airline_id", "airlines", "operated by {x}", "operated {y}"),
        Reference("airport_id", "airports", "to {x}", "received {y}"),
        Number("passengers", 30, 420, noun="number of passengers", more="carrying more than {v} people",
               less="carrying fewer than {v} people",
               most="fullest", least="emptiest", ask="How many people does {x} carry?", total=True),
        Date("departed_on", (2022, 2024), "that departed", "departure date"),
    )),
))  # fmt: skip

CINEMA = Subject("cinema", (
    Table("directors", "director", 22, (
        Key("director_id"), Label("name", PERSON),
        Category("nationality", ("French", "Korean", "Mexican", "Danish"), "of {v} nationality"),
        Number("awards", 0, 14, noun="number of awards", more="who won more than {v} awards",
               less="who won fewer than {v} awards",
               most="most decorated", least="least decorated", ask="How many prizes did {x} win?", total=True),
    ), person=True),
    Table("movies", "movie", 70, (
        Key("movie_id"), Label("title", Names("pair", (
            "Midnight", "Paper", "Lonely", "Burning", "Hidden", "Electric", "Velvet", "Final"),
            ("Train", "Detective", "Desert", "Kingdom", "Highway", "Stranger", "Dream", "Signal", "Waltz"))),
        Reference("director_id", "directors", "directed by {x}", "directed {y}"),
        Category("genre", ("comedy", "drama", "thriller", "western"), "in the {v} genre"),
        Number("duration", 68, 212, unit=" minutes", more="longer than {v} minutes", less="shorter than {v} minutes",
               most="longest", least="shortest", ask="How long is {x}?"),
        Number("rating", 2, 9.8, step=0.1),
    )),
    Table("screenings", "screening", 140, (
        Key("screening_id"), Reference("movie_id", "movies", "of {x}", "had {y}"),
        Category("hall", ("Hall A", "Hall B", "Hall C"), "in {v}"),
        Number("tickets_sold", 5, 260, noun="number of tickets sold", total=True),
        Date("shown_on", (2023, 2024), "held", "screening date"),
    )),
))  # fmt: skip

MUSIC_LABEL = Subject("music_label", (
    Table("bands", "band", 24, (
        Key("band_id"), Label("name", Names("pair", ("Purple", "Wild", "Iron", "Lazy", "Neon"),
                                            ("Owls", "Kites", "Lemons", "Tigers", "Robots"))),
        Category("style", ("rock", "jazz", "folk", "soul"), "playing {v}"),
        Number("founded", 1962, 2019, noun="founding year", more="formed after {v}", less="formed before {v}",
               most="newest", least="oldest", ask="In which year was {x} formed?"),
    )),
    Table("albums", "album", 60, (
        Key("album_id"), Label("title", Names("pair", ("Morning", "Hollow", "Crystal", "Second", "Endless", "Plain"),
                                              ("Rain", "Streets", "Echo", "Fire", "Summer", "Shadows", "Roads",
                                               "Colours", "Promise", "Weather", "Tide"))),
        Reference("band_id", "bands", "recorded by {x}", "recorded {y}"),
        Number("copies_sold", 1_000, 800_000, noun="number of copies sold", most="best-selling",
               least="worst-selling", ask="How often was {x} sold?", step=1_000, total=True),
        Date("released_on", (1990, 2024), "released", "release date"),
    )),
    Table("songs", "song", 120, (
        Key("song_id"), Label("title", Names("pair", (
            "Blue", "Dear", "Hello", "Sweet", "Little", "Old", "Brave", "Sad", "Fast", "Cold", "Young"),
            ("Jenny", "Moon", "Sailor", "Town", "Sister", "Engine", "Heart", "Winter", "Dancer", "Friend", "Ghost",
             "Mountain"))),
        Reference("album_id", "albums", "on {x}", "have {y}"),
        Number("seconds", 95, 540, noun="length", unit=" seconds", more="longer than {v} seconds",
               less="shorter than {v} seconds", most="longest", least="shortest", ask="How long is {x}?", total=True),
        Number("plays", 100, 950_000, noun="number of plays", more="played more than {v} times",
               less="played fewer than {v} times",
               most="most played", least="least played", ask="How often was {x} played?", step=100, total=True),
    )),
))  # fmt: skip

FOOTBALL = Subject("football", (
    Table("teams", "team", 20, (
        Key("team_id"), Label("name", Names("pair", ("Ashton", "Barrow", "Carlow", "Denby", "Eastham"),
                                            ("Rovers", "United", "Wanderers", "Athletic"))),
        Category("league", ("Premier", "First", "Second"), "playing in the {v} league"),
        Number("budget", 200_000, 9_000_000, most="richest", least="poorest", step=50_000, total=True),
        Number("founded", 1880, 1990, noun="founding year", more="formed after {v}", less="formed before {v}",
               most="newest", least="oldest", ask="In which year was {x} formed?"),
    )),
    Table("players", "player", 120, (
        Key("player_id"), Label("name", PERSON), Reference("team_id", "teams", "playing for {x}", "have {y}"),
        Category("position", ("goalkeeper", "defender", "midfielder", "striker"), "in the {v} position"),
        Number("age", 17, 39, more="older than {v}", less="younger than {v}", most="oldest", least="youngest",
               ask="How old is {x}?"),
        Number("goals", 0, 180, noun="number of goals", more="who scored more than {v} times",
               less="who scored fewer than {v} times",
               ask="How often did {x} score?", total=True),
        Date("signed_on", (2016, 2024), "signed", "signing date"),
    ), person=True),
))  # fmt: skip

RESTAURANT = Subject("restaurant", (
    Table("restaurants", "restaurant", 22, (
        Key("restaurant_id"), Label("name", Names("pair", ("Golden", "Little", "Happy", "Red", "Corner"),
                                                  ("Spoon", "Dragon", "Olive", "Table", "Kitchen"))),
        Category("cuisine", ("Thai", "Greek", "Turkish", "Mexican"), "serving {v} food"),
        Number("seats", 16, 180, noun="number of seats", more="with room for more than {v} people",
               less="with room for fewer than {v} people",
               most="largest", least="smallest", ask="How many people fit into {x}?", total=True),
    )),
    Table("dishes", "dish", 70, (
        Key("dish_id"), Label("name", Names("pair", ("Grilled", "Spicy", "Creamy", "Smoked", "Roasted", "Fresh",
                                                     "Stuffed", "Crispy"),
                                            ("Salmon", "Noodles", "Aubergine", "Chicken", "Rice", "Lentils", "Peppers",
                                             "Mushrooms", "Tofu"))),
        Reference("restaurant_id", "restaurants", "offered by {x}", "offered {y}"),
        Category("course", ("starter", "main", "side"), "served as a {v}"),
        Number("price", 4, 38, more="costing more than {v}", less="costing less than {v}", most="most expensive",
               least="cheapest", ask="How much does {x} cost?", step=0.5),
        Number("calories", 120, 1_200, noun="calorie count", step=10),
    )),
    Table("reviews", "review", 130, (
        Key("review_id"), Reference("restaurant_id", "restaurants", "of {x}", "received {y}"),
        Number("score", 1, 10), Date("written_on", (2020, 2024), "written", "review date"),
    )),
))  # fmt: skip

MUSEUM = Subject("museum", (
    Table("painters", "painter", 24, (
        Key("painter_id"), Label("name", PERSON),
        Category("nationality", ("Dutch", "Italian", "Spanish", "Russian"), "of {v} nationality"),
        Number("birth_year", 1580, 1960, more="born after {v}", less="born before {v}", most="youngest",
               least="oldest", ask="In which year was {x} born?"),
    ), person=True),
    Table("paintings", "painting", 90, (
        Key("painting_id"), Label("title", Names("pair", (
            "Woman", "Boats", "Village", "Horses", "Children", "Fruit", "Storm", "Harvest", "Dancers", "Trees"),
            ("at Dawn", "by the Sea", "in Blue", "with Clouds", "at Night", "in Autumn", "near the Mill",
             "after Rain", "in the Snow", "at Noon"))),
        Reference("painter_id", "painters", "painted by {x}", "painted {y}"),
        Category("style", ("baroque", "cubist", "impressionist", "abstract"), "in the {v} style"),
        Number("height", 20, 320, unit=" cm", more="taller than {v} cm", less="shorter than {v} cm", most="tallest",
               least="shortest", ask="How tall is {x}?"),
        Number("value", 5_000, 4_000_000, more="worth more than {v}", less="worth less than {v}",
               most="most valuable", least="least valuable", ask="How much is {x} worth?", step=5_000, total=True),
        Date("restored_on", (1995, 2024), "restored", "restoration date", pending="never restored"),
    )),
))  # fmt: skip

GYM = Subject("gym", (
    Table("trainers", "trainer", 20, (
        Key("id"), Label("name", PERSON),
        Category("specialty", ("yoga", "boxing", "cycling", "pilates"), "specialising in {v}"),
        Number("hourly_fee", 20, 95, more="charging more than {v} an hour", less="charging less than {v} an hour",
               ask="How much does {x} charge an hour?"),
    ), person=True),
    Table("members", "member", 60, (
        Key("id"), Label("name", PERSON), Category("plan", ("basic", "premium", "student"), "on the {v} plan"),
        Number("weight", 46, 118, unit=" kg", more="heavier than {v} kg", less="lighter than {v} kg",
               most="heaviest", least="lightest", ask="How heavy is {x}?"),
        Date("left_on", (2021, 2024), "who left", "leaving date", pending="yet to leave"),
    ), person=True),
    Table("sessions", "session", 150, (
        Key("id"), Reference("trainer_id", "trainers", "led by {x}", "led {y}"),
        Reference("member_id", "members", "attended by {x}", "attended {y}"),
        Number("minutes", 20, 120, noun="length", unit=" minutes", more="lasting more than {v} minutes",
               less="lasting less than {v} minutes", step=5, total=True),
        Date("held_on", (2021, 2024), "held", "session date"),
    )),
))  # fmt: skip

CONCERTS = Subject("concerts", (
    Table("venues", "venue", 20, (
        Key("venue_id"), Label("name", Names("pair", ("City", "Park", "River", "Market", "Castle"),
                                             ("Arena", "Hall", "Stage", "Theatre"))),
        Category("city", ("Dublin", "Glasgow", "Cardiff", "Belfast"), "located in {v}"),
        Number("capacity", 200, 24_000, more="with room for more than {v} people",
               less="with room for fewer than {v} people", most="largest", least="smallest",
               ask="How many people fit into {x}?", step=100, total=True),
    )),
    Table("concerts", "concert", 110, (
        Key("concert_id"), Label("title", Names("pair", (
            "Spring", "Gala", "Opening", "Charity", "Jubilee", "Lantern", "Harbour", "Twilight", "Encore", "Festival",
            "Autumn"),
            ("Evening", "Night", "Special", "Matinee", "Live", "Sounds", "Voices", "Strings", "Session", "Classics"))),
        Reference("venue_id", "venues", "held at {x}", "hosted {y}"),
        Category("genre", ("opera", "pop", "swing", "choral"), "in the {v} genre"),
        Number("ticket_price", 8, 160, more="costing more than {v}", less="costing less than {v}",
               most="most expensive", least="cheapest", ask="How much does {x} cost?"),
        Date("held_on", (2019, 2024), "held", "concert date"),
    )),
))  # fmt: skip

SPACE = Subject("space", (
    Table("agencies", "agency", 20, (
        Key("agency_id"), Label("name", Names("pair", ("Orion", "Vega", "Titan", "Comet", "Lunar"),
                                              ("Dynamics", "Space", "Systems", "Labs"))),
        Category("country", ("Germany", "Korea", "Argentina", "Sweden"), "from {v}"),
        Number("staff", 40, 9_000, noun="number of staff", more="employing more than {v} people",
               less="employing fewer than {v} people", most="largest", least="smallest",
               ask="How many people does {x} employ?", step=10, total=True),
    ), many="agencies"),
    Table("rockets", "rocket", 36, (
        Key("rocket_id"), Label("name", Names("code", ("Ares", "Nova", "Zenit"))),
        Reference("agency_id", "agencies", "built by {x}", "built {y}"),
        Number("height", 18, 110, unit=" metres", more="taller than {v} metres", less="shorter than {v} metres",
               most="tallest", least="shortest", ask="How tall is {x}?"),
        Number("payload", 150, 24_000, unit=" kg", ask="How much can {x} carry?", step=50),
    )),
    Table("launches", "launch", 130, (
        Key("launch_id"), Reference("rocket_id", "rockets", "of {x}", "made {y}"),
        Category("outcome", ("success", "failure", "partial"), "with the outcome {v}"),
        Number("cost", 4, 190, more="costing more than {v} million", less="costing less than {v} million",
               unit=" million", total=True),
        Date("launched_on", (2008, 2024), "made", "launch date"),
    )),
))  # fmt: skip

ZOO = Subject("zoo", (
    Table("keepers", "keeper", 20, (
        Key("keeper_id"), Label("name", PERSON),
        Category("section", ("reptiles", "birds", "mammals"), "working with {v}"),
        Number("salary", 21_000, 48_000, more="earning more than {v}", less="earning less than {v}",
               most="best-paid", least="worst-paid", ask="How much does {x} earn?", step=250),
        Date("hired_on", (2008, 2024), "hired", "hire date"),
    ), person=True),
    Table("animals", "animal", 80, (
        Key("animal_id"), Label("name", Names("list", tuple(
            f"{first}{last}" for first in ("Ko", "Mi", "Ra", "Zu", "Be", "Ta", "Lo", "Si", "Na")
            for last in ("ra", "lo", "mba", "ni", "do", "sha", "ku", "vi", "ri")))),
        Reference("keeper_id", "keepers", "looked after by {x}", "looked after {y}"),
        Category("species", ("lion", "zebra", "parrot", "python", "otter"), "of the species {v}"),
        Number("age", 1, 38, more="older than {v}", less="younger than {v}", most="oldest", least="youngest",
               ask="How old is {x}?"),
        Number("weight", 1, 260, unit=" kg", more="heavier than {v} kg", less="lighter than {v} kg",
               most="heaviest", least="lightest", ask="How heavy is {x}?"),
    )),
))  # fmt: skip

LEISURE = (
    LIBRARY, AIRLINE, CINEMA, MUSIC_LABEL, FOOTBALL, RESTAURANT, MUSEUM, GYM, CONCERTS, SPACE, ZOO,
)  # fmt: skip
