"""Subjects of the demo about work and trade."""

from __future__ import annotations

from training.domains.sql.demo.schemas import Category, Date, Key, Label, Names, Number, Reference, Subject, Table

PERSON = Names("person")

SHOP = Subject("shop", (
    Table("customers", "customer", 40, (
        Key("customer_id"), Label("name", PERSON),
        Category("city", ("Leeds", "Bristol", "York", "Oxford", "Bath", "Dover"), "living in {v}"),
        Date("joined_on", (2018, 2023), "who joined", "join date"),
    ), person=True),
    Table("products", "product", 30, (
        Key("product_id"),
        Label("name", Names("pair", ("Steel", "Wooden", "Folding", "Classic", "Mini", "Deluxe"),
                            ("Kettle", "Lamp", "Chair", "Rake", "Ball", "Puzzle", "Stapler"))),
        Category("category", ("Kitchen", "Garden", "Toys", "Sports", "Office"), "in the {v} category"),
        Number("price", 4, 240, more="costing more than {v}", less="costing less than {v}", most="most expensive",
               least="cheapest", ask="How much does {x} cost?", step=0.5),
        Number("stock", 0, 300, noun="number in stock", total=True),
    )),
    Table("orders", "order", 140, (
        Key("order_id"), Reference("customer_id", "customers", "placed by {x}", "placed {y}"),
        Reference("product_id", "products", "for {x}", "received {y}"), Number("quantity", 1, 12, total=True),
        Date("ordered_on", (2021, 2024), "placed", "order date"),
    )),
))  # fmt: skip

CLINIC = Subject("clinic", (
    Table("doctors", "doctor", 22, (
        Key("doctor_id"), Label("name", PERSON),
        Category("specialty", ("cardiology", "surgery", "neurology", "paediatrics"), "specialising in {v}"),
        Number("experience", 1, 36, noun="number of years in practice", more="practising for more than {v} years",
               less="practising for fewer than {v} years", most="most experienced", least="least experienced",
               ask="How long has {x} practised?"),
    ), person=True),
    Table("patients", "patient", 60, (
        Key("patient_id"), Label("name", PERSON),
        Category("blood_type", ("A", "B", "AB", "O"), "with blood type {v}"),
        Number("age", 2, 94, more="older than {v}", less="younger than {v}", most="oldest", least="youngest",
               ask="How old is {x}?"),
        Date("discharged_on", (2022, 2024), "discharged", "discharge date", pending="not yet discharged"),
    ), person=True),
    Table("visits", "visit", 150, (
        Key("visit_id"), Reference("doctor_id", "doctors", "with {x}", "received {y}"),
        Reference("patient_id", "patients", "made by {x}", "made {y}"),
        Number("fee", 20, 300, more="costing more than {v}", less="costing less than {v}", step=5.0, total=True),
        Date("visited_on", (2022, 2024), "made", "visit date"),
    )),
))  # fmt: skip

SCHOOL = Subject("school", (
    Table("teachers", "teacher", 20, (
        Key("id"), Label("name", PERSON),
        Category("subject", ("Maths", "Physics", "History", "Biology", "Music"), "teaching {v}"),
        Number("salary", 28_000, 64_000, more="earning more than {v}", less="earning less than {v}",
               most="best-paid", least="worst-paid", ask="How much does {x} earn?", step=500),
    ), person=True),
    Table("courses", "course", 32, (
        Key("id"),
        Label("title", Names("pair", ("Modern", "Applied", "Early", "Practical", "World", "General"),
                             ("Algebra", "Optics", "Genetics", "Harmony", "Geometry", "Ecology", "Empires"))),
        Reference("teacher_id", "teachers", "taught by {x}", "taught {y}"),
        Number("credits", 1, 12, noun="number of credits"),
        Category("level", ("beginner", "intermediate", "advanced"), "at the {v} level"),
    )),
    Table("students", "student", 60, (
        Key("id"), Label("name", PERSON), Number("age", 11, 19, more="older than {v}", less="younger than {v}",
                                                 most="oldest", least="youngest", ask="How old is {x}?"),
        Category("hometown", ("Ashford", "Milton", "Redhill", "Kelso", "Tenby"), "from {v}"),
    ), person=True),
    Table("enrollments", "enrollment", 150, (
        Key("id"), Reference("student_id", "students", "of {x}", "have {y}"),
        Reference("course_id", "courses", "in {x}", "have {y}"), Number("score", 20, 100),
    )),
))  # fmt: skip

COMPANY = Subject("company", (
    Table("departments", "department", 20, (
        Key("department_id"),
        Label("name", Names("list", (
            "Sales", "Marketing", "Finance", "Legal", "Research", "Support", "Design", "Logistics", "Security",
            "Training", "Purchasing", "Quality", "Payroll", "Planning", "Recruiting", "Exports", "Testing", "Press",
            "Facilities", "Strategy"))),
        Category("city", ("Berlin", "Vienna", "Zurich", "Prague"), "located in {v}"),
        Number("budget", 50_000, 900_000, most="best-funded", least="worst-funded", step=10_000, total=True),
    )),
    Table("employees", "employee", 90, (
        Key("employee_id"), Label("name", PERSON),
        Reference("department_id", "departments", "working in {x}", "have {y}"),
        Category("role", ("analyst", "manager", "engineer", "assistant"), "with the role {v}"),
        Number("salary", 24_000, 98_000, more="earning more than {v}", less="earning less than {v}",
               most="best-paid", least="worst-paid", ask="How much does {x} earn?", step=500),
        Date("hired_on", (2010, 2024), "hired", "hire date"),
    ), person=True),
    Table("projects", "project", 40, (
        Key("project_id"), Label("title", Names("pair", ("Blue", "Green", "Silver", "Golden", "Rapid", "Quiet"),
                                                ("Falcon", "Harbour", "Bridge", "Compass", "Lantern", "Summit",
                                                "Orbit"))),
        Reference("department_id", "departments", "run by {x}", "launched {y}"),
        Number("cost", 5_000, 400_000, more="costing more than {v}", less="costing less than {v}",
               most="most expensive", least="cheapest", ask="How much does {x} cost?", step=1_000, total=True),
        Date("finished_on", (2020, 2024), "finished", "finish date", pending="not yet finished"),
    )),
))  # fmt: skip

BANK = Subject("bank", (
    Table("clients", "client", 40, (
        Key("client_id"), Label("name", PERSON),
        Category("region", ("North", "South", "East", "West"), "in the {v} region"),
        Number("income", 14_000, 160_000, more="earning more than {v}", less="earning less than {v}",
               most="richest", least="poorest", ask="How much does {x} earn?", step=1_000),
    ), person=True),
    Table("accounts", "account", 80, (
        Key("account_id"), Label("account_number", Names("code", ("AC",))),
        Reference("client_id", "clients", "owned by {x}", "opened {y}"),
        Category("account_type", ("savings", "checking", "business"), "of type {v}"),
        Number("balance", 50, 48_000, more="holding more than {v}", less="holding less than {v}",
               ask="How much money is in {x}?", step=0.25, total=True),
        Date("opened_on", (2012, 2024), "opened", "opening date"),
    )),
    Table("loans", "loan", 60, (
        Key("loan_id"), Reference("client_id", "clients", "taken out by {x}", "took out {y}"),
        Category("purpose", ("house", "car", "education", "travel"), "with the purpose {v}"),
        Number("amount", 1_000, 250_000, more="worth more than {v}", less="worth less than {v}", step=500,
               total=True),
        Number("interest_rate", 1, 9, unit=" percent", step=0.1),
    )),
))  # fmt: skip

FARM = Subject("farm", (
    Table("farms", "farm", 22, (
        Key("farm_id"), Label("name", Names("pair", ("Oak", "Willow", "Stone", "Mill", "Fox"),
                                            ("Hill", "Brook", "Field", "Hollow", "Meadow"))),
        Category("region", ("Kent", "Devon", "Norfolk", "Fife"), "in the {v} region"),
        Number("hectares", 8, 420, noun="area", unit=" hectares", more="larger than {v} hectares",
               less="smaller than {v} hectares", most="largest", least="smallest", ask="How large is {x}?", total=True),
    )),
    Table("tractors", "tractor", 40, (
        Key("tractor_id"), Label("model", Names("code", ("TX", "RL", "GM"))),
        Reference("farm_id", "farms", "owned by {x}", "bought {y}"),
        Number("horsepower", 40, 310, more="more powerful than {v} horsepower",
               less="less powerful than {v} horsepower", most="most powerful", least="least powerful",
               ask="How powerful is {x}?", step=5),
        Date("bought_on", (2005, 2024), "bought", "purchase date"),
    )),
    Table("harvests", "harvest", 120, (
        Key("harvest_id"), Reference("farm_id", "farms", "brought in by {x}", "brought in {y}"),
        Category("crop", ("wheat", "barley", "potatoes", "apples", "beans"), "of {v}"),
        Number("tonnes", 2, 180, noun="weight", unit=" tonnes", more="heavier than {v} tonnes",
               less="lighter than {v} tonnes", total=True),
        Date("harvested_on", (2019, 2024), "brought in", "harvest date"),
    )),
))  # fmt: skip

HOMES = Subject("homes", (
    Table("agents", "agent", 20, (
        Key("agent_id"), Label("name", PERSON),
        Category("office", ("Central", "Riverside", "Airport"), "based in the {v} office"),
        Number("commission", 1, 6, unit=" percent", step=0.1),
    ), person=True),
    Table("houses", "house", 80, (
        Key("house_id"),
        Label("address", Names("pair", tuple(str(number) for number in range(2, 60, 7)),
                               ("Elm Road", "High Street", "Park Lane", "Mill Way", "Church Row", "Bay View",
                                "Rose Close", "Lake Drive", "North Gate", "Cedar Court"))),
        Reference("agent_id", "agents", "listed by {x}", "listed {y}"),
        Category("district", ("Harbour", "Old Town", "Hillside", "Westend"), "in the {v} district"),
        Number("bedrooms", 1, 7, noun="number of bedrooms"),
        Number("price", 90_000, 880_000, more="costing more than {v}", less="costing less than {v}",
               most="most expensive", least="cheapest", ask="How much does {x} cost?", step=5_000),
        Date("sold_on", (2021, 2024), "sold", "sale date", pending="still unsold"),
    )),
    Table("viewings", "viewing", 130, (
        Key("viewing_id"), Reference("house_id", "houses", "of {x}", "had {y}"),
        Number("visitors", 1, 14, noun="number of visitors", total=True),
        Date("viewed_on", (2021, 2024), "held", "viewing date"),
    )),
))  # fmt: skip

SOFTWARE = Subject("software", (
    Table("developers", "developer", 24, (
        Key("developer_id"), Label("name", PERSON),
        Category("team", ("Core", "Mobile", "Cloud", "Data"), "in the {v} team"),
        Number("hourly_rate", 25, 140, more="charging more than {v} an hour", less="charging less than {v} an hour",
               ask="How much does {x} charge an hour?"),
    ), person=True),
    Table("apps", "app", 24, (
        Key("app_id"), Label("name", Names("pair", ("Snap", "Note", "Trip", "Cash", "Mind"),
                                           ("Box", "Flow", "Buddy", "Pilot", "Nest"), "")),
        Category("platform", ("Android", "iOS", "web"), "made for {v}"),
        Number("downloads", 500, 900_000, noun="number of downloads", more="downloaded more than {v} times",
               less="downloaded fewer than {v} times", most="most downloaded", least="least downloaded",
               ask="How often was {x} downloaded?", step=500, total=True),
    )),
    Table("bugs", "bug", 90, (
        Key("bug_id"), Label("title", Names("pair", ("Crash", "Freeze", "Delay", "Wrong text", "Blank page", "Leak"),
                                            ("at login", "on start", "in search", "after update", "in settings",
                                             "while saving", "on exit", "in the menu", "when offline", "during sync",
                                             "at upload", "in the editor", "on resize", "when printing",
                                             "in dark mode"))),
        Reference("app_id", "apps", "found in {x}", "have {y}"),
        Reference("developer_id", "developers", "assigned to {x}", "have {y}"),
        Category("severity", ("low", "medium", "critical"), "of {v} severity"),
        Date("closed_on", (2022, 2024), "closed", "closing date", pending="still open"),
    )),
))  # fmt: skip

RENTAL = Subject("rental", (
    Table("cars", "car", 30, (
        Key("car_id"), Label("model", Names("pair", ("Astra", "Corsa", "Polo", "Civic", "Yaris", "Clio"),
                                            ("Sport", "Eco", "Family", "City", "Plus"))),
        Category("colour", ("red", "blue", "white", "black", "grey"), "painted {v}"),
        Number("daily_price", 18, 140, more="costing more than {v} a day", less="costing less than {v} a day",
               most="most expensive", least="cheapest", ask="How much does {x} cost a day?"),
        Number("mileage", 400, 160_000, more="driven more than {v} kilometres",
               less="driven less than {v} kilometres", ask="How far has {x} been driven?", step=100, total=True),
    )),
    Table("drivers", "driver", 40, (
        Key("driver_id"), Label("name", PERSON),
        Category("city", ("Lyon", "Nice", "Lille", "Nantes", "Tours"), "living in {v}"),
        Number("age", 18, 79, more="older than {v}", less="younger than {v}", most="oldest", least="youngest",
               ask="How old is {x}?"),
    ), person=True),
    Table("rentals", "rental", 140, (
        Key("rental_id"), Reference("car_id", "cars", "of {x}", "had {y}"),
        Reference("driver_id", "drivers", "made by {x}", "made {y}"),
        Number("days", 1, 30, noun="number of days", more="lasting more than {v} days",
               less="lasting fewer than {v} days", total=True),
        Date("rented_on", (2020, 2024), "made", "rental date"),
    )),
))  # fmt: skip

HOTEL = Subject("hotel", (
    Table("hotels", "hotel", 22, (
        Key("id"), Label("name", Names("pair", ("Grand", "Royal", "Sea", "Garden", "Crown"),
                                       ("Palace", "Lodge", "Plaza", "Inn", "Resort"))),
        Category("city", ("Lisbon", "Porto", "Madrid", "Seville", "Malaga"), "located in {v}"),
        Number("stars", 1, 5, noun="number of stars"),
        Number("rooms", 12, 340, noun="number of rooms", more="with space for more than {v} rooms",
               less="with space for fewer than {v} rooms",
               most="largest", least="smallest", ask="How large is {x}?", total=True),
    )),
    Table("guests", "guest", 50, (
        Key("id"), Label("name", PERSON),
        Category("country", ("Norway", "Canada", "Japan", "Italy", "Ireland"), "from {v}"),
    ), person=True),
    Table("bookings", "booking", 150, (
        Key("id"), Reference("guest_id", "guests", "made by {x}", "made {y}"),
        Reference("hotel_id", "hotels", "at {x}", "received {y}"),
        Number("nights", 1, 21, noun="number of nights", more="lasting more than {v} nights",
               less="lasting fewer than {v} nights", total=True),
        Number("cost", 60, 4_200, more="worth more than {v}", less="worth less than {v}", step=10, total=True),
        Date("check_in", (2021, 2024), "starting", "check-in date"),
    )),
))  # fmt: skip

WORK = (SHOP, CLINIC, SCHOOL, COMPANY, BANK, FARM, HOMES, SOFTWARE, RENTAL, HOTEL)
