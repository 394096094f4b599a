local sum = 0
for round = 1, 4 do
  local t, list = {}, {}
  for i = 1, 40000 do
    t["k" .. i % 5000] = (t["k" .. i % 5000] or 0) + i
    list[#list + 1] = {i * 7919 % 10007, i}
  end
  table.sort(list, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  for _, v in pairs(t) do sum = sum + v end
  sum = sum + list[1][2] + list[#list][2]
end
print(sum)
