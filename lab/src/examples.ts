// Texts of our own to search in: eight subjects, and words that mean something else in each.

const OF: Record<string, string[]> = {
  river: [
    "We sat on the bank and watched the barges pass.",
    "The current is strongest where the river bends.",
    "A sluice keeps the mill pond at its level.",
    "After the rain the stream carried branches and mud.",
    "Otters have dug their den into the bank.",
  ],
  money: [
    "The bank charges a fee for every transfer.",
    "Her current account pays no interest.",
    "Interest on the loan is due at the end of the month.",
    "He changed his notes for coins at the counter.",
    "The invoice was paid twice by mistake.",
  ],
  music: [
    "She plays the harp by ear, without any notes.",
    "The key of this song is too high for my voice.",
    "A bass hums below the melody.",
    "The organ in the old chapel has lost two pipes.",
    "They tuned the strings before the concert.",
  ],
  kitchen: [
    "Let the dough rise until it has doubled.",
    "Season the soup with salt and a bay leaf.",
    "We grilled a bass with lemon and butter.",
    "Dates and figs keep for months in a jar.",
    "Bread is baked from flour, water and patience.",
  ],
  weather: [
    "A light breeze comes up before the season of storms.",
    "Thunder rolled over the valley all night.",
    "Fog hides the bridge in the morning.",
    "It will not rain before Thursday.",
    "Frost has drawn ferns on the window.",
  ],
  body: [
    "The palm of his hand was sore from rowing.",
    "A nurse checked her pulse and her temperature.",
    "The heart is an organ that never rests.",
    "His ear hurt after the flight.",
    "Drink plenty of water while you have a fever.",
  ],
  garden: [
    "A palm needs shelter from frost.",
    "Spring is the time to sow beans.",
    "Slugs ate every leaf of the salad overnight.",
    "Roots of the old pear tree lift the path.",
    "Mulch keeps the soil moist in summer.",
  ],
  computers: [
    "The server answers a request in ten milliseconds.",
    "Press any key to go on.",
    "A stream of bytes is written to the log.",
    "The tree is balanced after each insertion.",
    "The update was rolled back after it failed.",
  ],
};

export const EXAMPLES = Object.entries(OF).flatMap(([subject, texts]) =>
  texts.map((text, place) => ({ id: `${subject}-${place + 1}`, text, metadata: { subject } })),
);

/** A query that poolings answer differently. */
export const EXAMPLE_QUERY = "sitting by the water";
