// Names in tables may break after a dot, a slash or an underscore, and before a capital letter.
addEventListener("DOMContentLoaded", () => {
  for (const name of document.querySelectorAll(".table-wrapper code span")) {
    name.innerHTML = name.innerHTML.replace(/[._/](?=\w)|[a-z](?=[A-Z])/g, "$&<wbr>");
  }
});
