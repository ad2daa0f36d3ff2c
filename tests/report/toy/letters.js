"use strict";
for (const line of document.querySelectorAll(".letters")) line.dataset.ran = String(Number(line.dataset.ran || 0) + 1);
