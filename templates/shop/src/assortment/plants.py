"""Plants, a line a species: `name | botanical | shape | colours | lowest-highest price | height in cm | cultivars`.

A section is `# Category > Subcategory | exposure | season | use`. `shape` and `colours` are what
`pictures.py` draws. An empty cultivar list sells the species itself.
"""

PLANTS = """
# Arbres > Érables du Japon | mi-ombre | avril à novembre | en isolé ou en grand bac
Érable du Japon | Acer palmatum | tree | crimson,wine | 29-89 | 400 | Atropurpureum, Bloodgood, Osakazuki, Sango-kaku, Katsura, Orange Dream, Skeeter's Broom, Shishigashira, Beni-maiko, Deshojo, Butterfly, Ukigumo, Trompenburg, Bi-hoo, Ryusen
Érable du Japon à feuilles découpées | Acer palmatum dissectum | shrub | crimson,amber | 39-119 | 180 | Garnet, Crimson Queen, Inaba-shidare, Seiryu, Viridis, Tamukeyama, Orangeola, Emerald Lace
Érable de Shirasawa | Acer shirasawanum | tree | lime,amber | 49-99 | 350 | Aureum, Jordan, Moonrise, Autumn Moon
# Arbres > Arbres d'ornement | soleil | mars à octobre | en isolé ou en alignement
Cerisier du Japon | Prunus serrulata | tree | pink,rose | 39-119 | 600 | Kanzan, Amanogawa, Kiku-shidare-zakura, Royal Burgundy, Shirotae, Taihaku, Pink Perfection
Magnolia | Magnolia × soulangeana | tree | blush,rose | 35-99 | 450 | Genie, Susan, Heaven Scent, Galaxy, Yellow Bird, Rustica Rubra, Black Tulip
Magnolia étoilé | Magnolia stellata | shrub | white,blush | 29-69 | 250 | Royal Star, Waterlily, Rosea
Bouleau blanc de l'Himalaya | Betula utilis | tree | lime,white | 45-129 | 1200 | Jacquemontii, Doorenbos, Snow Queen
Liquidambar | Liquidambar styraciflua | tree | crimson,amber | 49-139 | 1500 | Worplesdon, Slender Silhouette, Gumball, Lane Roberts
Arbre de Judée | Cercis siliquastrum | tree | rose,violet | 39-99 | 500 | Bodnant, Alba
Gainier du Canada | Cercis canadensis | tree | wine,violet | 45-119 | 400 | Forest Pansy, Hearts of Gold, Lavender Twist, Ruby Falls
Pommier à fleurs | Malus | tree | pink,crimson | 35-89 | 450 | Évereste, Royalty, Golden Hornet, Red Sentinel, Rudolph
Cornouiller à fleurs | Cornus kousa | tree | white,pink | 39-119 | 500 | Milky Way, Satomi, Venus, China Girl, Wolf Eyes
Albizia | Albizia julibrissin | tree | pink,rose | 39-99 | 700 | Ombrella, Summer Chocolate, Rouge de Tuilière
Lilas des Indes | Lagerstroemia indica | tree | rose,violet | 29-99 | 400 | Rouge Dynamite, Violacea, Nivea, Rosea, Petite Canaille
Ginkgo aux quarante écus | Ginkgo biloba | tree | amber,lime | 45-149 | 1500 | Princeton Sentry, Mariken, Troll
# Arbres > Conifères | soleil | toute l'année | en rocaille, en isolé ou en bac
Pin sylvestre | Pinus sylvestris | conifer | pine,teal | 35-119 | 800 | Watereri, Aurea, Fastigiata
Pin de montagne | Pinus mugo | conifer | pine,lime | 25-69 | 120 | Mughus, Pumilio, Winter Gold, Ophir
Épicéa bleu | Picea pungens | conifer | teal,steel | 39-139 | 700 | Hoopsii, Glauca Globosa, Edith
Genévrier | Juniperus | conifer | steel,pine | 15-59 | 200 | Blue Arrow, Skyrocket, Blue Star, Old Gold, Prince of Wales
Cyprès de Lawson | Chamaecyparis lawsoniana | conifer | lime,teal | 19-69 | 500 | Columnaris, Ellwoodii, Ivonne
If commun | Taxus baccata | conifer | pine,forest | 25-99 | 500 | Fastigiata Robusta, Repandens, Summergold
Cèdre de l'Himalaya | Cedrus deodara | conifer | teal,lime | 49-149 | 1500 | Feelin' Blue, Golden Horizon
# Arbustes > Arbustes à fleurs | soleil | avril à septembre | en massif ou en haie libre
Lilas commun | Syringa vulgaris | shrub | violet,lilac | 25-59 | 350 | Charles Joly, Madame Lemoine, Sensation, Belle de Nancy, Katherine Havemeyer, Souvenir de Louis Späth
Arbre aux papillons | Buddleja davidii | shrub | violet,pink | 15-35 | 220 | Black Knight, Pink Delight, White Profusion, Royal Red, Empire Blue
Hibiscus de jardin | Hibiscus syriacus | shrub | lilac,rose | 19-49 | 220 | Oiseau Bleu, Woodbridge, Red Heart, Hamabo, Lady Stanley
Forsythia | Forsythia × intermedia | shrub | yellow,amber | 15-35 | 200 | Lynwood, Marée d'Or, Week-End
Seringat | Philadelphus | shrub | white,cream | 15-39 | 220 | Virginal, Belle Étoile, Lemoinei, Manteau d'Hermine
Weigélia | Weigela florida | shrub | pink,wine | 15-35 | 180 | Bristol Ruby, Alexandra, Minuet, Candida
Spirée | Spiraea | shrub | rose,white | 12-29 | 120 | Anthony Waterer, Goldflame, Snowmound, Grefsheim
Viorne | Viburnum | shrub | white,blush | 19-49 | 250 | Roseum, Ève Price, Dawn, Mariesii
Céanothe | Ceanothus | shrub | blue,violet | 19-45 | 250 | Concha, Gloire de Versailles, Skylark, Trewithen Blue
Deutzia | Deutzia | shrub | white,pink | 15-35 | 180 | Magicien, Nikko, Strawberry Fields
Azalée du Japon | Azalea japonica | shrub | rose,crimson | 12-35 | 90 | Blaauw's Pink, Johanna, Maruschka, Hino Crimson, Silvester
Rhododendron | Rhododendron | shrub | violet,rose | 19-69 | 180 | Cunningham's White, Nova Zembla, Germania, Percy Wiseman, Horizon Monarch
Camélia du Japon | Camellia japonica | shrub | crimson,blush | 25-79 | 300 | Nobilissima, Général Colletti, Black Lace, Bonomiana, Debbie
# Arbustes > Hydrangéas | mi-ombre | juin à octobre | en massif ou au pied d'un mur au nord
Hortensia | Hydrangea macrophylla | bush | blue,pink | 17-39 | 150 | Bouquet Rose, Endless Summer, Leuchtfeuer, Madame Émile Mouillère, Magical Ruby
Hydrangéa paniculé | Hydrangea paniculata | bush | cream,blush | 19-45 | 200 | Limelight, Vanille Fraise, Phantom, Wim's Red, Little Lime, Grandiflora
Hydrangéa à feuilles de chêne | Hydrangea quercifolia | bush | cream,wine | 19-45 | 160 | Snow Queen, Burgundy, Ice Crystal
Hydrangéa arborescent | Hydrangea arborescens | bush | white,pink | 19-39 | 150 | Annabelle, Strong Annabelle, Pink Annabelle
# Arbustes > Persistants et haies | toutes expositions | toute l'année | en haie ou en topiaire
Laurier-cerise | Prunus laurocerasus | hedge | forest,white | 9-39 | 300 | Rotundifolia, Caucasica, Otto Luyken, Novita
Photinia | Photinia × fraseri | hedge | crimson,forest | 12-45 | 300 | Red Robin, Carré Rouge, Pink Marble, Little Red Robin
Buis | Buxus sempervirens | hedge | forest,lime | 7-49 | 120 | Rotundifolia, Suffruticosa, Elegans
Houx | Ilex aquifolium | hedge | forest,crimson | 15-59 | 350 | Alaska, J.C. van Tol, Argentea Marginata, Madame Briot
Oranger du Mexique | Choisya ternata | hedge | white,lime | 17-39 | 160 | Sundance, Aztec Pearl, White Dazzler
Éléagnus | Elaeagnus × ebbingei | hedge | steel,yellow | 15-45 | 250 | Limelight, Gilt Edge, Compacta
Pittosporum | Pittosporum tobira | hedge | lime,cream | 15-49 | 200 | Nanum, Variegatum
Abélia | Abelia × grandiflora | hedge | blush,lime | 15-35 | 140 | Kaleidoscope, Édouard Goucher, Sherwood
# Arbustes > Plantes grimpantes | soleil, pied à l'ombre | mai à octobre | sur un treillage ou une pergola
Clématite | Clematis | climber | violet,blue | 12-29 | 300 | Jackmanii, Nelly Moser, Ville de Lyon, Étoile Violette, Docteur Ruppel, Perle d'Azur, Comtesse de Bouchaud
Glycine | Wisteria | climber | lilac,violet | 25-69 | 800 | Prolific, Alba, Macrobotrys, Black Dragon
Chèvrefeuille | Lonicera | climber | amber,rose | 12-29 | 400 | Halliana, Belgica, Goldflame, Serotina
Jasmin étoilé | Trachelospermum jasminoides | climber | white,forest | 19-49 | 500 | Star of Toscane, Pink Showers, Waterwheel
Bignone | Campsis | climber | orange,crimson | 19-39 | 600 | Madame Galen, Flava, Indian Summer
Vigne vierge | Parthenocissus | climber | crimson,forest | 12-29 | 800 | Veitchii, Engelmannii
# Rosiers > Rosiers buissons | soleil | mai à novembre | en massif ou en bordure
Rosier buisson | Rosa | rose | rose,crimson | 15-29 | 90 | Madame Meilland, Papa Meilland, Grand Siècle, Mister Lincoln, Frédéric Mistral, Charles de Gaulle, La Reine Victoria, Louis de Funès, Botticelli, Leonardo de Vinci, Iceberg, Nostalgie, Chandos Beauty
Rosier paysager | Rosa | rose | pink,white | 12-25 | 70 | Opalia, Emera, Fleurette, Knirps, Swany, Mirato
# Rosiers > Rosiers grimpants | soleil | juin à octobre | sur une façade, une arche ou une tonnelle
Rosier grimpant | Rosa | rose | blush,crimson | 17-35 | 300 | Pierre de Ronsard, Madame Alfred Carrière, Zéphirine Drouhin, Albertine, Étoile de Hollande, New Dawn, Paul's Scarlet, Golden Showers, Nahéma, Iceberg Grimpant
Rosier liane | Rosa | rose | white,cream | 17-35 | 600 | Bobbie James, Wedding Day, Kiftsgate, Ghislaine de Féligonde
# Rosiers > Rosiers anciens | soleil | mai à juillet | en massif, en haie fleurie
Rosier ancien | Rosa | rose | wine,rose | 17-32 | 150 | Cuisse de Nymphe, Cardinal de Richelieu, Charles de Mills, Comte de Chambord, Jacques Cartier, Madame Hardy, Reine des Violettes, Souvenir de la Malmaison, Tuscany Superb, Rose de Rescht, Fantin-Latour
# Vivaces > Vivaces de soleil | soleil | mai à octobre | en massif, en bordure, en bouquet
Lavande vraie | Lavandula angustifolia | spike | violet,lilac | 5-12 | 60 | Hidcote, Munstead, Rosea, Alba, Essence Purple
Sauge arbustive | Salvia microphylla | spike | crimson,rose | 6-12 | 90 | Hot Lips, Royal Bumble, Blue Monrovia, Pink Blush
Sauge des bois | Salvia nemorosa | spike | violet,blue | 5-10 | 60 | Caradonna, Ostfriesland, Amethyst
Géranium vivace | Geranium | perennial | violet,pink | 5-11 | 45 | Rozanne, Johnson's Blue, Wargrave Pink, Biokovo, Ann Folkard, Patricia
Échinacée pourpre | Echinacea purpurea | daisy | rose,orange | 6-13 | 90 | Magnus, White Swan, Hot Papaya, Green Jewel, Cheyenne Spirit
Rudbeckia | Rudbeckia | daisy | yellow,amber | 5-10 | 80 | Goldsturm, Herbstsonne, Little Goldstar
Marguerite d'été | Leucanthemum × superbum | daisy | white,yellow | 5-10 | 80 | Étoile d'Anvers, Becky, Wirral Supreme
Achillée | Achillea | perennial | amber,crimson | 5-10 | 70 | Paprika, Terracotta, Moonshine, Cerise Queen
Pivoine herbacée | Paeonia lactiflora | rose | rose,blush | 12-29 | 90 | Sarah Bernhardt, Duchesse de Nemours, Karl Rosenfield, Festiva Maxima, Bowl of Beauty, Coral Charm
Iris des jardins | Iris germanica | iris | violet,amber | 6-14 | 80 | Blue Rhythm, Edith Wolford, Provençal, Natchez Trace, Superstition, Before the Storm
Delphinium | Delphinium | spike | blue,violet | 7-14 | 150 | King Arthur, Galahad, Black Knight, Astolat
Gaura | Gaura lindheimeri | spike | white,pink | 5-10 | 90 | Whirling Butterflies, Siskiyou Pink
Aster d'automne | Aster | daisy | violet,pink | 5-10 | 90 | Mönch, Marie Ballard, Fellowship, Lady in Blue
Sédum d'automne | Sedum spectabile | perennial | rose,wine | 5-10 | 50 | Herbstfreude, Matrona, Brillant, Purple Emperor
Œillet mignardise | Dianthus plumarius | perennial | pink,white | 5-9 | 30 | Doris, Haytor White, Maggie, Pike's Pink
Nepeta | Nepeta × faassenii | spike | lilac,blue | 5-10 | 60 | Six Hills Giant, Walker's Low, Snowflake
# Vivaces > Vivaces d'ombre | ombre ou mi-ombre | avril à octobre | en sous-bois, au pied des arbres
Hosta | Hosta | leafy | forest,lime | 7-19 | 60 | Halcyon, Patriot, Sum and Substance, Frances Williams, June, Blue Angel
Heuchère | Heuchera | leafy | wine,amber | 6-13 | 40 | Palace Purple, Caramel, Marmalade, Lime Rickey, Obsidian
Anémone du Japon | Anemone hybrida | daisy | blush,white | 6-12 | 100 | Honorine Jobert, Königin Charlotte, Pamina, September Charm
Astilbe | Astilbe | spike | rose,white | 6-12 | 70 | Fanal, Brautschleier, Vision, Peach Blossom
Hellébore | Helleborus | daisy | wine,cream | 9-22 | 45 | Rose de Noël, Double Ellen, Pink Frost, Picotee Lady
Fougère | Dryopteris | leafy | forest,pine | 6-14 | 80 | Cristata, Brillance, Linearis Polydactyla
Cœur de Marie | Lamprocapnos spectabilis | perennial | pink,white | 7-14 | 70 | Valentine, Alba, Gold Heart
Pulmonaire | Pulmonaria | leafy | blue,pink | 5-10 | 30 | Opal, Blue Ensign, Raspberry Splash
# Vivaces > Graminées | soleil | juillet à février | en massif naturel ou en grand pot
Herbe aux écouvillons | Pennisetum alopecuroides | grass | amber,cream | 6-15 | 90 | Hameln, Little Bunny, Moudry, Rubrum
Roseau de Chine | Miscanthus sinensis | grass | cream,wine | 8-19 | 180 | Gracillimus, Zebrinus, Morning Light, Ferner Osten
Laîche | Carex | grass | lime,amber | 5-11 | 35 | Evergold, Everillo, Prairie Fire, Frosted Curls
Fétuque bleue | Festuca glauca | grass | steel,teal | 4-8 | 25 | Elijah Blue, Intense Blue
Stipa | Stipa tenuissima | grass | cream,amber | 5-10 | 60 | Pony Tails, Cheveux d'Ange
# Vivaces > Bulbes | soleil ou mi-ombre | mars à septembre | en massif, en pot, en pelouse
Tulipe | Tulipa | bulb | crimson,yellow | 4-9 | 45 | Queen of Night, Apeldoorn, Angélique, Rococo, Ballerina, Black Parrot
Narcisse | Narcissus | bulb | yellow,cream | 4-8 | 40 | Tête-à-Tête, Ice Follies, Thalia, Dutch Master
Dahlia | Dahlia | daisy | wine,orange | 5-12 | 110 | Bishop of Llandaff, Café au Lait, Bora Bora, Thomas Edison, Arabian Night
Allium d'ornement | Allium | bulb | violet,lilac | 4-12 | 90 | Globemaster, Purple Sensation, Mount Everest
Lis | Lilium | bulb | white,orange | 5-11 | 110 | Casa Blanca, Stargazer, Regale
# Fruitiers > Pommiers et poiriers | soleil | récolte d'août à novembre | en verger ou palissé
Pommier | Malus domestica | fruit | crimson,lime | 22-59 | 400 | Reine des Reinettes, Belle de Boskoop, Golden Delicious, Reinette Grise du Canada, Cox's Orange, Granny Smith, Melrose, Patte de Loup, Akane, Calville Blanc
Poirier | Pyrus communis | fruit | lime,amber | 22-59 | 400 | Conférence, Doyenné du Comice, Williams, Louise-Bonne d'Avranches, Beurré Hardy, Passe-Crassane, Comtesse de Paris
Cognassier | Cydonia oblonga | fruit | yellow,amber | 25-49 | 350 | Champion, Vranja, de Provence
# Fruitiers > Fruits à noyau | soleil | récolte de juin à septembre | en verger, à l'abri des gelées
Cerisier | Prunus avium | fruit | crimson,wine | 25-59 | 500 | Burlat, Cœur de Pigeon, Summit, Reverchon, Napoléon, Montmorency
Prunier | Prunus domestica | fruit | violet,amber | 25-55 | 400 | Reine-Claude Dorée, Mirabelle de Nancy, Quetsche d'Alsace, Stanley, d'Ente
Abricotier | Prunus armeniaca | fruit | orange,amber | 25-55 | 400 | Bergeron, Luizet, Pêche de Nancy, Polonais
Pêcher | Prunus persica | fruit | rose,orange | 25-55 | 350 | Sanguine de Savoie, Redhaven, Grosse Mignonne, Téton de Vénus
# Fruitiers > Petits fruits | soleil ou mi-ombre | récolte de juin à octobre | en haie gourmande ou en pot
Framboisier | Rubus idaeus | berry | crimson,rose | 5-12 | 150 | Héritage, Malling Promise, Fallgold, Zeva, Capitou
Groseillier | Ribes rubrum | berry | crimson,white | 7-15 | 130 | Jonkheer van Tets, Rovada, Versaillaise Blanche
Cassissier | Ribes nigrum | berry | wine,violet | 7-15 | 140 | Noir de Bourgogne, Andega, Titania
Myrtillier | Vaccinium corymbosum | berry | blue,violet | 9-22 | 150 | Bluecrop, Duke, Sunshine Blue, Pink Lemonade
Fraisier | Fragaria | berry | crimson,rose | 3-7 | 25 | Gariguette, Mara des Bois, Charlotte, Cirafine, Reine des Vallées
Vigne de table | Vitis vinifera | berry | violet,lime | 9-22 | 400 | Chasselas Doré, Muscat de Hambourg, Perdin, Italia
# Fruitiers > Agrumes et Méditerranée | soleil, à l'abri l'hiver | récolte d'octobre à mars | en pot, en véranda ou au sud
Citronnier | Citrus limon | fruit | yellow,lime | 29-89 | 250 | Quatre Saisons, Meyer, Caviar
Oranger | Citrus sinensis | fruit | orange,amber | 35-89 | 250 | Navel, Sanguine, Valencia
Olivier | Olea europaea | fruit | forest,violet | 25-149 | 500 | Cipressino, Aglandau, Picholine, Bouteillan
Figuier | Ficus carica | fruit | violet,wine | 19-59 | 350 | Violette de Solliès, Goutte d'Or, Madeleine des Deux Saisons, Brown Turkey
Grenadier | Punica granatum | fruit | crimson,orange | 25-59 | 300 | Mollar de Elche, Nana, Provence
# Potager > Plantes aromatiques | soleil | feuillage de mars à novembre | au potager ou sur le balcon
Thym | Thymus | herb | forest,lilac | 3-6 | 25 | Citron, Commun, Silver Queen, Faustini
Romarin | Rosmarinus officinalis | herb | steel,blue | 4-15 | 120 | Rampant, Pointe du Raz, Arp
Menthe | Mentha | herb | lime,forest | 3-6 | 50 | Poivrée, Marocaine, Chocolat, Bergamote, Ananas
Basilic | Ocimum basilicum | herb | lime,violet | 3-5 | 40 | Grand Vert, Pourpre, Citron, Thaï, Fin Vert Nain
Sauge officinale | Salvia officinalis | herb | steel,violet | 4-7 | 60 | Tricolor, Icterina, Purpurascens
# Potager > Plants de légumes | soleil | récolte de juin à octobre | au potager ou en grand pot
Tomate | Solanum lycopersicum | vegetable | crimson,orange | 2-5 | 180 | Cœur de Bœuf, Noire de Crimée, Marmande, Ananas, Rose de Berne, Green Zebra, Cerise Sweet 100, Cornue des Andes
Courgette | Cucurbita pepo | vegetable | forest,yellow | 2-5 | 60 | Ronde de Nice, Verte de Milan, Gold Rush
Poivron | Capsicum annuum | vegetable | crimson,yellow | 2-5 | 70 | Doux d'Espagne, Corno di Toro, Petit Marseillais
Aubergine | Solanum melongena | vegetable | violet,wine | 2-5 | 80 | Violette de Florence, Barbentane, Monstrueuse de New York
Artichaut | Cynara scolymus | vegetable | forest,violet | 4-8 | 130 | Gros Vert de Laon, Violet de Provence, Impérial Star
"""
